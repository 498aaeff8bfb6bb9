//! One call of a plugin: variables, JSON in, JSON out.

use std::{path::PathBuf, process::Stdio, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
};

use crate::Error;

/// How long a plugin may work.
const PATIENCE: Duration = Duration::from_secs(90);
/// More than this is no answer.
const LARGEST: u64 = 1 << 20;

pub(super) struct Call<'a> {
    pub(super) binary: PathBuf,
    pub(super) command: &'a str,
    pub(super) variables: [(&'static str, String); 6],
    pub(super) input: Value,
}

impl Call<'_> {
    /// Runs it; the result, or what it says went wrong.
    pub(super) async fn run(self) -> Result<Value, Error> {
        let name = self.binary.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let operation = match self.command {
            "ADD" => "ADD of",
            "DEL" => "DEL of",
            _ => "CHECK of",
        };
        let failed = |message: String| Error::CniPlugin { plugin: name.clone(), operation, message };
        match tokio::time::timeout(PATIENCE, self.communicate()).await {
            Err(_) => Err(failed(format!("no answer in {} s", PATIENCE.as_secs()))),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Ok(Ok((true, output, _))) => {
                if self.command == "ADD" {
                    serde_json::from_slice(&output).map_err(|error| failed(format!("its result: {error}")))
                } else {
                    Ok(Value::Null)
                }
            }
            Ok(Ok((false, output, errors))) => Err(failed(complaint(&output, &errors))),
        }
    }

    async fn communicate(&self) -> std::io::Result<(bool, Vec<u8>, Vec<u8>)> {
        let mut process = Command::new(&self.binary)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let pipe = "the pipe was asked for";
        let (mut stdin, stdout, stderr) = (
            process.stdin.take().expect(pipe),
            process.stdout.take().expect(pipe),
            process.stderr.take().expect(pipe),
        );
        let input = self.input.to_string();
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        let (mut stdout, mut stderr) = (stdout.take(LARGEST), stderr.take(LARGEST));
        let writing = async {
            // A plugin that does not read its input says what it wants by its exit code.
            let _ = stdin.write_all(input.as_bytes()).await;
            drop(stdin);
        };
        let (_, read, complained, status) = tokio::join!(
            writing,
            stdout.read_to_end(&mut output),
            stderr.read_to_end(&mut errors),
            process.wait()
        );
        read?;
        complained?;
        Ok((status?.success(), output, errors))
    }
}

/// What a plugin says about its failure: `msg` and `details` on standard output, or whatever is on standard error.
fn complaint(output: &[u8], errors: &[u8]) -> String {
    let said: Value = serde_json::from_slice(output).unwrap_or_default();
    let text = |key: &str| said[key].as_str().unwrap_or_default().trim().to_owned();
    match (text("msg"), text("details")) {
        (message, details) if !message.is_empty() && !details.is_empty() => format!("{message}; {details}"),
        (message, _) if !message.is_empty() => message,
        _ => {
            let errors = String::from_utf8_lossy(errors);
            let last = errors.trim().lines().last().unwrap_or_default();
            if last.is_empty() { "it failed and does not say why".to_owned() } else { last.to_owned() }
        }
    }
}
