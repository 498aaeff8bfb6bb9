//! The built-in image `sampan.local/toolbox`: small tools in the sampan binary itself.
