//! How old a record is, by two clocks (rule D8).
//!
//! The wall clock may be set back, the boot clock starts anew with the machine; of the two ages the
//! greater counts. A record from the future counts as past `fresh`.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// When something was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stamp {
    /// Seconds since 1970.
    wall: u64,
    /// Which boot of the machine.
    boot: u64,
    /// Seconds since that boot, suspended time included.
    uptime: u64,
}

/// The two clocks. Tests move them by hand.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// Now, as a stamp.
    pub now: fn() -> Stamp,
}

/// How far a record may be trusted by its age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// Younger than `cache.fresh`.
    Fresh,
    /// Past it, within `cache.stale`.
    Stale,
    /// Past both.
    Expired,
}

impl Stamp {
    /// A stamp of these readings.
    #[must_use]
    pub const fn new(wall: u64, boot: u64, uptime: u64) -> Self {
        Self { wall, boot, uptime }
    }

    /// Seconds since 1970.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.wall
    }

    /// Which boot of the machine, and seconds since it: a clock that nobody sets.
    #[must_use]
    pub const fn since_boot(self) -> (u64, u64) {
        (self.boot, self.uptime)
    }

    /// The same moment, or the one of `seconds` since 1970 where that is earlier: a claim never makes
    /// anything younger than now. By the boot clock it is as much older.
    #[must_use]
    pub const fn earlier(self, seconds: u64) -> Self {
        let passed = self.wall.saturating_sub(seconds);
        let uptime = self.uptime.saturating_sub(passed);
        Self { wall: self.wall - passed, boot: self.boot, uptime }
    }

    /// How old this is at `now`.
    #[must_use]
    pub fn age(self, now: Self, fresh: Duration, stale: Duration) -> Age {
        let by_boot = if self.boot == now.boot { now.uptime.checked_sub(self.uptime) } else { Some(0) };
        let (Some(by_wall), Some(by_boot)) = (now.wall.checked_sub(self.wall), by_boot) else {
            // From the future. How far past fresh is unknown, so only the outage rules may use it.
            return if stale.is_zero() { Age::Expired } else { Age::Stale };
        };
        let age = Duration::from_secs(by_wall.max(by_boot));
        if age < fresh {
            Age::Fresh
        } else if age < stale {
            Age::Stale
        } else {
            Age::Expired
        }
    }

    /// Whether what was recorded at this time and ends with the second `until` is over at `now`. By
    /// the later of the two clocks; a record from the future is over, since nobody knows.
    #[must_use]
    pub const fn is_over(self, until: u64, now: Self) -> bool {
        if now.wall < self.wall || now.wall >= until {
            return true;
        }
        match now.uptime.checked_sub(self.uptime) {
            Some(passed) if self.boot == now.boot => self.wall.saturating_add(passed) >= until,
            None if self.boot == now.boot => true,
            Some(_) | None => false,
        }
    }
}

impl Clock {
    /// The machine's own clocks.
    #[must_use]
    pub const fn system() -> Self {
        Self { now: system_now }
    }
}

fn system_now() -> Stamp {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let uptime = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
        .ok()
        .and_then(|time| u64::try_from(time.tv_sec()).ok())
        .unwrap_or(0);
    Stamp { wall, boot: *BOOT, uptime }
}

/// The first bits of the kernel's boot id; 0 where it cannot be read.
static BOOT: std::sync::LazyLock<u64> = std::sync::LazyLock::new(|| {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    u64::from_str_radix(&digits, 16).unwrap_or(0)
});

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: Duration = Duration::from_secs(10);
    const STALE: Duration = Duration::from_secs(100);

    #[test]
    fn d8_the_older_of_two_clocks_counts() {
        let record = Stamp::new(1000, 1, 500);
        for (now, age) in [
            (Stamp::new(1009, 1, 509), Age::Fresh),
            (Stamp::new(1010, 1, 509), Age::Stale),
            (Stamp::new(1001, 1, 520), Age::Stale),
            (Stamp::new(1001, 1, 700), Age::Expired),
            (Stamp::new(1100, 1, 501), Age::Expired),
            (Stamp::new(1009, 2, 3), Age::Fresh),
        ] {
            assert_eq!(record.age(now, FRESH, STALE), age, "{now:?}");
        }
    }

    #[test]
    fn d8_what_ends_is_over_by_the_later_clock() {
        let record = Stamp::new(1000, 1, 500);
        for (now, over) in [
            (Stamp::new(1000, 1, 500), false),
            (Stamp::new(1059, 1, 559), false),
            (Stamp::new(1060, 1, 559), true),
            (Stamp::new(1001, 1, 559), false),
            (Stamp::new(1001, 1, 560), true),
            (Stamp::new(999, 1, 501), true),
            (Stamp::new(1001, 1, 499), true),
            (Stamp::new(1059, 2, 900), false),
            (Stamp::new(1060, 2, 0), true),
        ] {
            assert_eq!(record.is_over(1060, now), over, "{now:?}");
        }
    }

    #[test]
    fn d8_a_record_from_the_future_is_past_fresh() {
        let record = Stamp::new(1000, 1, 500);
        assert_eq!(record.age(Stamp::new(999, 1, 501), FRESH, STALE), Age::Stale);
        assert_eq!(record.age(Stamp::new(1001, 1, 499), FRESH, STALE), Age::Stale);
        assert_eq!(record.age(Stamp::new(999, 1, 501), FRESH, Duration::ZERO), Age::Expired);
    }
}
