//! Seeded random streams for everything that is random: order, weights, dropout, augmentation, synthetic
//! digits.
//!
//! The generator is SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014): the
//! n-th number is a hash of a start plus n times a constant, so that any number of any stream can be had without those
//! before it, on any thread. Each use has a stream of its own, named by seed, purpose and index, and drawing more from one
//! never shifts another. All streams are stretches of one cycle of 2^64 numbers; a hundred thousand streams of a thousand
//! numbers each meet with a probability below one in a million.
//!
//! Everything here is integer arithmetic or exactly specified by IEEE 754: the same numbers on every machine.

/// What a stream is for. The numbers are part of what a seed means: they never change, new ones are added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// The order of the training images; one stream an epoch.
    Order = 1,
    /// The initial weights; one stream a layer.
    Weights = 2,
    /// Which hidden units are dropped.
    Dropout = 3,
    /// The synthetic training digits; one stream an image.
    SyntheticTrain = 4,
    /// The synthetic test digits; one stream an image.
    SyntheticTest = 5,
    /// How training images are distorted; one stream an image and epoch.
    Augmentation = 6,
}

/// SplitMix64's step: 2^64 divided by the golden ratio, made odd.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// An endless stream of random numbers.
#[derive(Debug, Clone)]
pub struct Stream {
    state: u64,
}

impl Stream {
    /// The stream of `seed` for `purpose`, number `index`. For one seed and purpose no two indices start alike.
    pub fn new(seed: u64, purpose: Purpose, index: u64) -> Self {
        let key = mix(mix(seed.wrapping_add(STEP)) ^ purpose as u64);
        Self { state: mix(key ^ index) }
    }

    /// The number that the `n`-th next call of [`Stream::next_u64`] will return, counted from 0, without the calls.
    pub fn at(&self, n: u64) -> u64 {
        mix(self.state.wrapping_add(STEP.wrapping_mul(n.wrapping_add(1))))
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(STEP);
        mix(self.state)
    }

    /// 32 random bits, the better half of one 64-bit number.
    pub fn next_u32(&mut self) -> u32 {
        (self.next_u64() >> 32) as u32
    }

    /// A whole number from 0 to `n` - 1, each equally likely; 0 where `n` is 0.
    ///
    /// Source: Lemire, Fast Random Integer Generation in an Interval, ACM TOMACS 29 (2019), algorithm 5.
    pub fn below(&mut self, n: u32) -> u32 {
        let mut product = u64::from(self.next_u32()) * u64::from(n);
        if (product as u32) < n {
            let threshold = n.wrapping_neg() % n;
            while (product as u32) < threshold {
                product = u64::from(self.next_u32()) * u64::from(n);
            }
        }
        (product >> 32) as u32
    }

    /// A multiple of 2^-53 from 0 up to, but without, 1.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Roughly normal, with mean 0 and variance 1 but never beyond +-3.47: the sum of four 16-bit uniform numbers
    /// (Irwin-Hall distribution), which needs no logarithm, sine or cosine, whose last bits differ between machines.
    pub fn bell(&mut self) -> f64 {
        const SQRT_3: f64 = 1.732_050_807_568_877_2;
        let bits = self.next_u64();
        let sum: u64 = (0..4).map(|lane| bits >> (16 * lane) & 0xffff).sum();
        // Each lane has mean 65535/2, and the sum's standard deviation is 65536 / sqrt(3).
        (sum as f64 - 131_070.0) / 65_536.0 * SQRT_3
    }
}

/// SplitMix64's output function: Stafford's variant 13 of MurmurHash3's finalizer, a permutation of the 64-bit numbers.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers that Vigna's reference implementation (<https://prng.di.unimi.it/splitmix64.c>) gives for this seed.
    #[test]
    fn the_published_numbers_come_out() {
        let mut stream = Stream { state: 1_234_567 };
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        let start = stream.clone();
        for (n, number) in expected.into_iter().enumerate() {
            assert_eq!(start.at(n as u64), number);
            assert_eq!(stream.next_u64(), number);
        }
    }

    #[test]
    fn seed_purpose_and_index_each_name_another_stream() {
        let first = |seed, purpose, index| Stream::new(seed, purpose, index).next_u64();
        let base = first(42, Purpose::Order, 0);
        assert_eq!(base, first(42, Purpose::Order, 0));
        assert_ne!(base, first(43, Purpose::Order, 0));
        assert_ne!(base, first(42, Purpose::Weights, 0));
        assert_ne!(base, first(42, Purpose::Order, 1));
    }

    /// What a seed means never changes; the numbers were worked out apart, in Python.
    #[test]
    fn streams_start_where_they_always_did() {
        let first = |purpose| Stream::new(42, purpose, 7).next_u64();
        assert_eq!(first(Purpose::Order), 15_421_519_769_599_906_560);
        assert_eq!(first(Purpose::Weights), 11_769_414_076_348_675_652);
        assert_eq!(first(Purpose::Dropout), 13_550_855_551_272_953_977);
    }

    #[test]
    fn below_is_even_and_in_range() {
        let mut stream = Stream::new(1, Purpose::Order, 0);
        let mut counts = [0u32; 10];
        for _ in 0..100_000 {
            counts[stream.below(10) as usize] += 1;
        }
        // Five standard deviations of a binomial count (n = 100,000, p = 0.1) are 474.
        assert!(counts.iter().all(|count| count.abs_diff(10_000) < 475), "{counts:?}");
        assert_eq!(stream.below(1), 0);
        assert_eq!(stream.below(0), 0);
    }

    /// Plain scaling of 32 bits would hit each residue class of 3 * 2^30 values unevenly: 0 mod 3 half of the time.
    #[test]
    fn below_is_even_where_scaling_alone_is_not() {
        let mut stream = Stream::new(2, Purpose::Order, 0);
        let multiples = (0..30_000).filter(|_| stream.below(3 << 30).is_multiple_of(3)).count();
        assert!(multiples.abs_diff(10_000) < 410, "{multiples}");
    }

    #[test]
    fn uniform_and_bell_have_their_mean_spread_and_bounds() {
        let mut stream = Stream::new(3, Purpose::Weights, 0);
        let n = 100_000;
        let moments = |numbers: Vec<f64>| {
            let mean = numbers.iter().sum::<f64>() / n as f64;
            (mean, numbers.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n as f64)
        };
        let uniform: Vec<f64> = (0..n).map(|_| stream.uniform()).collect();
        assert!(uniform.iter().all(|x| (0.0..1.0).contains(x)));
        let (mean, variance) = moments(uniform);
        assert!((mean - 0.5).abs() < 0.005 && (variance - 1.0 / 12.0).abs() < 0.002, "{mean} {variance}");
        let bell: Vec<f64> = (0..n).map(|_| stream.bell()).collect();
        assert!(bell.iter().all(|x| x.abs() < 3.47));
        let (mean, variance) = moments(bell);
        assert!(mean.abs() < 0.016 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
    }
}
