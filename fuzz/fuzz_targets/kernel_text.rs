#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| inspect_fuzz::kernel_text(data));
