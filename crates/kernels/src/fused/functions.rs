//! Functions of one number without branches, so that the compiler turns loops over them into vector instructions.

/// `ln x`: the mantissa between sqrt(1/2) and sqrt(2) by a polynomial (our own minimax fit, 4e-9 relatively in exact
/// arithmetic), the exponent by `ln 2` in two parts. NaN below 0, -infinity at 0.
#[inline(always)]
pub(super) fn log(x: f32) -> f32 {
    const SQRT_HALF_BITS: u32 = 0x3f35_04f3;
    let small = x < f32::MIN_POSITIVE;
    let scaled = if small { x * 8_388_608.0 } else { x };
    let bits = scaled.to_bits().wrapping_sub(SQRT_HALF_BITS);
    let exponent = (bits as i32 >> 23) as f32 - if small { 23.0 } else { 0.0 };
    let f = f32::from_bits((bits & 0x007f_ffff) + SQRT_HALF_BITS) - 1.0;
    let mut p = -0.076_211_25;
    p = p * f + 0.129_046_79;
    p = p * f - 0.132_434_67;
    p = p * f + 0.141_818_33;
    p = p * f - 0.166_090_12;
    p = p * f + 0.200_019_69;
    p = p * f - 0.250_015_86;
    p = p * f + 0.333_333_26;
    // The first two terms carry the precision: f - f²/2.
    let square = f * f;
    let value = f - (0.5 * square - (p * square * f + exponent * -2.121_944_4e-4)) + exponent * 0.693_359_4;
    let value = if x == f32::INFINITY { x } else { value };
    let value = if x == 0.0 { f32::NEG_INFINITY } else { value };
    if x >= 0.0 { value } else { f32::NAN }
}

/// `ln(1 + x)`, precise near 0 by the difference that rounding `1 + x` makes.
#[inline(always)]
pub(super) fn log1p(x: f32) -> f32 {
    let u = 1.0 + x;
    let value = log(u) + (x - (u - 1.0)) / u;
    if u == f32::INFINITY || u == 0.0 { log(u) } else { value }
}

/// `e^x - 1` from `grown = e^x`, precise near 0: the error of `grown` cancels in `(grown - 1) x / ln grown`.
#[inline(always)]
pub(super) fn expm1(x: f32, grown: f32) -> f32 {
    let less = grown - 1.0;
    let value = less * (x / log(grown));
    let value = if grown == 1.0 { x } else { value };
    if grown == 0.0 || grown == f32::INFINITY { less } else { value }
}

/// A random number in [0, 1) for place `index` of the stream that `key` names: two rounds of a multiply-and-shift hash.
#[inline(always)]
pub(super) fn uniform(key: u64, index: u32) -> f32 {
    let mut x = index ^ key as u32;
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x = (x ^ (x >> 16)) ^ (key >> 32) as u32;
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^= x >> 16;
    (x >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// The key of a stream of random numbers: mixed from the run's seed, the step and the stream's own number.
pub fn random_key(stream: u32, seed: f32, step: f32) -> u64 {
    let mut key = 0x9e37_79b9_7f4a_7c15u64;
    for part in [stream, seed.to_bits(), step.to_bits()] {
        key = (key ^ part as u64).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        key ^= key >> 29;
        key = key.wrapping_mul(0x94d0_49bb_1331_11eb);
        key ^= key >> 32;
    }
    key
}

/// What [`super::Function::Uniform`] yields at `index` of the stream with `key`.
pub fn random_uniform(key: u64, index: u32) -> f32 {
    uniform(key, index)
}
