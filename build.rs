//! Tells the linker in which order the built-in runtime's functions are to be.

fn main() {
    let order = "runtime/order.ld";
    println!("cargo::rerun-if-changed={order}");
    // The static program, which is the one that is measured and installed.
    if std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|environment| environment == "musl") {
        let directory = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo::rustc-link-arg-bin=inspect-runtime=-Wl,-T,{directory}/{order}");
    }
}
