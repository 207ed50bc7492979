//! The program `stubborn`.

fn main() {}
