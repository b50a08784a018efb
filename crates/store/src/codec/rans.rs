//! The entropy coder: range coding of bytes by asymmetric numeral systems (rANS), with the frequencies of each plane
//! written before it. Eight states take turns, so that a processor works on eight symbols at once.
//!
//! Source: J. Duda, "Asymmetric numeral systems" (arXiv 1311.2540); F. Giesen, "Interleaved entropy coders"
//! (arXiv 1402.3392). Frequencies are parts of 4096; a state is 32 bits and takes or gives words of 16.

use super::CodecError;

const LANES: usize = 8;
const SCALE_BITS: u32 = 12;
const SCALE: u32 = 1 << SCALE_BITS;
/// What every state begins with in the encoder, and must end with in the decoder.
const STATE_MIN: u32 = 1 << 16;
const BITMAP_BYTES: usize = 32;
const STATES_BYTES: usize = LANES * 4;

/// How often each byte occurs.
pub struct Counts(pub [u32; 256]);

impl Counts {
    pub fn of(symbols: &[u8]) -> Counts {
        // Four tables, since equal neighbours would wait for each other in one.
        let mut tables = [[0u32; 256]; 4];
        let (quads, rest) = symbols.as_chunks::<4>();
        for quad in quads {
            for (table, symbol) in tables.iter_mut().zip(quad) {
                table[usize::from(*symbol)] += 1;
            }
        }
        for symbol in rest {
            tables[0][usize::from(*symbol)] += 1;
        }
        let [mut counts, second, third, fourth] = tables;
        for symbol in 0..256 {
            counts[symbol] += second[symbol] + third[symbol] + fourth[symbol];
        }
        Counts(counts)
    }

    /// The byte that all are, where they are.
    pub fn only(&self) -> Option<u8> {
        let mut present = (0..=255u8).filter(|symbol| self.0[usize::from(*symbol)] > 0);
        present.next().filter(|_| present.next().is_none())
    }

    /// Bytes that [`encode`] would need if frequencies weren't rounded, which costs little but where symbols are rare.
    pub fn coded_bytes(&self) -> usize {
        let total: u64 = self.0.iter().map(|count| u64::from(*count)).sum();
        let total = total as f64;
        let bits = |count: u32| f64::from(count) * (total / f64::from(count)).log2();
        let present = self.0.iter().filter(|count| **count > 0);
        let payload: f64 = present.clone().map(|count| bits(*count)).sum();
        BITMAP_BYTES + 2 * present.count() + STATES_BYTES + (payload / 8.0) as usize
    }

    /// Frequencies whose sum is [`SCALE`], none of a symbol that occurs being 0. At least two symbols occur.
    fn frequencies(&self) -> [u16; 256] {
        let total: u64 = self.0.iter().map(|count| u64::from(*count)).sum();
        let mut frequencies = [0u16; 256];
        let mut sum = 0;
        for (frequency, count) in frequencies.iter_mut().zip(&self.0) {
            if *count > 0 {
                let share = (u64::from(*count) * u64::from(SCALE) + total / 2) / total;
                *frequency = share.clamp(1, u64::from(SCALE) - 1) as u16;
                sum += u32::from(*frequency);
            }
        }
        // Rounding may leave a few too many or too few: the most frequent bear that best.
        while sum != SCALE {
            let Some(most) = frequencies.iter_mut().max() else { break };
            if sum > SCALE {
                let less = (sum - SCALE).min(u32::from(*most) / 2);
                *most -= less as u16;
                sum -= less;
            } else {
                *most += (SCALE - sum) as u16;
                sum = SCALE;
            }
        }
        frequencies
    }
}

/// Appends `symbols`, of which at least two differ, to `out`.
pub fn encode(symbols: &[u8], counts: &Counts, out: &mut Vec<u8>) {
    let frequencies = counts.frequencies();
    let mut starts = [0u32; 256];
    let mut start = 0;
    for symbol in 0..256 {
        starts[symbol] = start;
        start += u32::from(frequencies[symbol]);
    }
    // What was encoded last is decoded first.
    let mut words = Vec::with_capacity(symbols.len() / 2);
    let mut states = [STATE_MIN; LANES];
    let mut step = |state: &mut u32, symbol: u8| {
        let symbol = usize::from(symbol);
        let frequency = u32::from(frequencies[symbol]);
        if *state >= frequency << (32 - SCALE_BITS) {
            words.push(*state as u16);
            *state >>= 16;
        }
        *state = ((*state / frequency) << SCALE_BITS) + *state % frequency + starts[symbol];
    };
    let (groups, rest) = symbols.as_chunks::<LANES>();
    for (state, symbol) in states.iter_mut().zip(rest).rev() {
        step(state, *symbol);
    }
    for group in groups.iter().rev() {
        for (state, symbol) in states.iter_mut().zip(group).rev() {
            step(state, *symbol);
        }
    }
    let mut bitmap = [0u8; BITMAP_BYTES];
    for symbol in (0..256).filter(|symbol| frequencies[*symbol] > 0) {
        bitmap[symbol / 8] |= 1 << (symbol % 8);
    }
    out.extend(bitmap);
    out.extend(frequencies.iter().filter(|frequency| **frequency > 0).flat_map(|f| f.to_le_bytes()));
    out.extend(states.iter().flat_map(|state| state.to_le_bytes()));
    out.extend(words.iter().rev().flat_map(|word| word.to_le_bytes()));
}

/// For each of the [`SCALE`] slots: symbol, frequency and place among the symbol's slots, in 8, 12 and 12 bits.
type Table = [u32; SCALE as usize];

/// Fills `symbols` from what [`encode`] wrote.
///
/// # Errors
/// `coded` is no such thing.
pub fn decode(coded: &[u8], symbols: &mut [u8]) -> Result<(), CodecError> {
    let (table, rest) = read_table(coded)?;
    let (start, rest) = rest.split_at_checked(STATES_BYTES).ok_or(CodecError::Broken("states cut short"))?;
    let mut states = [0u32; LANES];
    for (state, bytes) in states.iter_mut().zip(start.as_chunks::<4>().0) {
        *state = u32::from_le_bytes(*bytes);
    }
    let (pairs, odd) = rest.as_chunks::<2>();
    if !odd.is_empty() {
        return Err(CodecError::Broken("half a word"));
    }
    // Zeros behind, so that the loop needs to look for the end once a group: no group takes more than a word a lane.
    let mut words: Vec<u16> = Vec::with_capacity(pairs.len() + LANES);
    words.extend(pairs.iter().map(|pair| u16::from_le_bytes(*pair)));
    words.extend([0; LANES]);

    let mut position = 0;
    let (groups, rest) = symbols.as_chunks_mut::<LANES>();
    for group in groups {
        let window = words.get(position..).and_then(|words| words.first_chunk::<LANES>());
        let window = window.ok_or(CodecError::Broken("words cut short"))?;
        let mut taken = 0;
        for (symbol, state) in group.iter_mut().zip(&mut states) {
            *symbol = step(&table, state, window[taken % LANES], &mut taken);
        }
        position += taken;
    }
    for (symbol, state) in rest.iter_mut().zip(&mut states) {
        let word = words.get(position).ok_or(CodecError::Broken("words cut short"))?;
        *symbol = step(&table, state, *word, &mut position);
    }
    if position != pairs.len() || states != [STATE_MIN; LANES] {
        return Err(CodecError::Broken("symbols don't end where they should"));
    }
    Ok(())
}

/// One symbol; `taken` is raised where `word` was.
#[inline(always)]
fn step(table: &Table, state: &mut u32, word: u16, taken: &mut usize) -> u8 {
    let entry = table[(*state % SCALE) as usize];
    let (frequency, place) = (entry >> 8 & (SCALE - 1), entry >> 20);
    // At most (2^20 - 1) * 4095 + 4095, which 32 bits hold.
    let reduced = frequency * (*state >> SCALE_BITS) + place;
    let is_small = reduced < STATE_MIN;
    *state = if is_small { reduced << 16 | u32::from(word) } else { reduced };
    *taken += usize::from(is_small);
    entry as u8
}

fn read_table(coded: &[u8]) -> Result<(Table, &[u8]), CodecError> {
    let (bitmap, mut rest) =
        coded.split_first_chunk::<BITMAP_BYTES>().ok_or(CodecError::Broken("frequencies cut short"))?;
    let mut table = [0; SCALE as usize];
    let mut start = 0;
    for symbol in (0..256u32).filter(|symbol| bitmap[*symbol as usize / 8] >> (symbol % 8) & 1 == 1) {
        let (frequency, after) =
            rest.split_first_chunk::<2>().ok_or(CodecError::Broken("frequencies cut short"))?;
        rest = after;
        let frequency = u32::from(u16::from_le_bytes(*frequency));
        let slots = table.get_mut(start as usize..(start + frequency) as usize);
        let slots = slots.filter(|_| (1..SCALE).contains(&frequency));
        let slots = slots.ok_or(CodecError::Broken("frequencies out of range"))?;
        for (place, slot) in slots.iter_mut().enumerate() {
            *slot = symbol | frequency << 8 | (place as u32) << 20;
        }
        start += frequency;
    }
    if start != SCALE {
        return Err(CodecError::Broken("frequencies that don't add up"));
    }
    Ok((table, rest))
}
