//! The other things that this executable is: shim, OCI runtime, and the programs inside the test containers.
//!
//! libtest owns `main`, so the choice is made in a constructor before it. Nothing of this is in the product.
#![allow(unsafe_code)]

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

#[used]
// SAFETY: a function pointer of the type that the C library calls before main.
#[unsafe(link_section = ".init_array")]
static CHOOSE: extern "C" fn() = choose;

extern "C" fn choose() {
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_default();
    let program = Path::new(&program).file_name().map(OsString::from).unwrap_or_default();
    let program = program.to_string_lossy();
    let code = if program == "probe" {
        super::probe::main(args)
    } else if let Some(applet) = sampan_toolbox::Applet::find(&program) {
        sampan_toolbox::run(applet, args)
    } else {
        match args.next().as_deref().and_then(|first| first.to_str()) {
            Some("shim") => sampan_shim::main(args, sampan_oci_runtime::run),
            Some("oci") => sampan_oci_runtime::main(args),
            Some("pull-and-die") => super::images::kill::child(args),
            _ => return,
        }
    };
    let _ = std::io::stdout().flush();
    // SAFETY: ends the process; nothing of the test harness exists yet.
    unsafe { libc::_exit(number(code)) }
}

/// An `ExitCode` does not tell its number.
fn number(code: ExitCode) -> i32 {
    let text = format!("{code:?}");
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(1)
}
