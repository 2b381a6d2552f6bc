//! The compiler against the meaning of profiles, and against libseccomp.
