//! The process that keeps a pod's containers: their parent, their stdio, their logs, their exit codes.
