//! Simple mutations of a seed, the same ones in every run.

/// An endless sequence of changed copies of a seed.
pub(super) struct Mutations<'a> {
    seed: &'a [u8],
    random: XorShift,
}

impl<'a> Mutations<'a> {
    pub(super) fn of(seed: &'a [u8]) -> Self {
        let hash = seed.iter().fold(OFFSET, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME));
        Self { seed, random: XorShift(hash) }
    }
}

impl Iterator for Mutations<'_> {
    type Item = Vec<u8>;

    /// One to four changes, one after the other.
    fn next(&mut self) -> Option<Vec<u8>> {
        let mut bytes = self.seed.to_vec();
        for _ in 0..=self.random.below(4) {
            change(&mut bytes, &mut self.random);
        }
        Some(bytes)
    }
}

fn change(bytes: &mut Vec<u8>, random: &mut XorShift) {
    let (from, to) = {
        let (one, other) = (random.below(bytes.len() + 1), random.below(bytes.len() + 1));
        (one.min(other), one.max(other))
    };
    let piece = bytes[from..to.min(from + 64)].to_vec();
    match random.below(8) {
        0 if !bytes.is_empty() => bytes[from.min(to.saturating_sub(1))] ^= 1 << random.below(8),
        1 => bytes.truncate(to),
        2 => drop(bytes.drain(from..to)),
        // A piece twice: repeated keys, second fields.
        3 => drop(bytes.splice(from..from, piece)),
        4 => drop(bytes.splice(to..to, piece)),
        5 => bytes.insert(from, random.byte()),
        6 => drop(bytes.splice(from..from, random.word())),
        _ if !bytes.is_empty() => bytes[from.min(to.saturating_sub(1))] = random.byte(),
        _ => bytes.push(random.byte()),
    }
}

/// Marsaglia's xorshift64: enough to spread changes, and the same on every machine.
struct XorShift(u64);

impl XorShift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 16).unwrap() % end
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[2]
    }

    /// What formats are made of.
    fn word(&mut self) -> Vec<u8> {
        const WORDS: [&[u8]; 16] = [
            b"\"",
            b"{",
            b"}",
            b"[",
            b"]",
            b",",
            b":",
            b"null",
            b"\n",
            b"\0",
            b"\xff",
            b"\xff\xff\xff\xff",
            b"-1",
            b"18446744073709551616",
            b"=",
            b"\xc3",
        ];
        WORDS[self.below(WORDS.len())].to_vec()
    }
}

// FNV-1a; zero would stay zero in the xorshift, and no hash of a seed is.
const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;
