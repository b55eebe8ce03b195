//! The words of the synthetic task. Where a list has two parts, index 0 is for people who did not like it, index 1 for those who did.
//! A change here changes the bundled files: run the `pretrain_tiny_opt` example again.

#[rustfmt::skip]
pub(super) const NAMES: [&str; 16] = [
    "anna", "ben", "clara", "david", "ella", "frank", "grace", "henry", "iris", "jack", "karen", "leo", "maria", "noah", "olga", "peter",
];

/// What a person did with it, and the thing.
#[rustfmt::skip]
pub(super) const THINGS: [(&str, &str); 12] = [
    ("watched", "film"), ("read", "book"), ("heard", "song"), ("ate", "soup"), ("played", "game"), ("visited", "museum"),
    ("saw", "play"), ("read", "novel"), ("heard", "concert"), ("tried", "cake"), ("watched", "show"), ("toured", "castle"),
];

#[rustfmt::skip]
pub(super) const DAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

#[rustfmt::skip]
pub(super) const ADJECTIVES: [[&str; 12]; 2] = [
    [
        "dull", "awful", "dreadful", "boring", "tedious", "poor",
        "bland", "terrible", "clumsy", "horrible", "weak", "annoying",
    ],
    [
        "great", "wonderful", "brilliant", "lovely", "charming", "superb",
        "delightful", "excellent", "beautiful", "splendid", "perfect", "amazing",
    ],
];

#[rustfmt::skip]
pub(super) const VERBS: [[&str; 6]; 2] = [
    ["hated", "despised", "loathed", "resented", "regretted", "scorned"],
    ["loved", "enjoyed", "admired", "adored", "praised", "treasured"],
];

pub(super) const NEUTRAL: [&str; 14] = [
    "the room was full.",
    "it was raining outside.",
    "a friend came along.",
    "the ticket cost ten dollars.",
    "the bus took an hour.",
    "the door was painted blue.",
    "there was a clock on the wall.",
    "the place is near the river.",
    "it was already late.",
    "a man sat by the window.",
    "the street was quiet.",
    "it took two hours.",
    "the lights were on.",
    "it was a cold day.",
];

/// Sentences that agree with the opinion, `{}` standing for the person.
pub(super) const CONSEQUENCES: [[&str; 5]; 2] = [
    [
        "{} wanted the money back.",
        "{} left before the end.",
        "{} gave it one star.",
        "{} will never go again.",
        "{} warned every friend.",
    ],
    [
        "{} smiled all evening.",
        "{} stayed until the end.",
        "{} gave it five stars.",
        "{} will soon go again.",
        "{} told every friend to go.",
    ],
];

/// Answers that agree with the opinion, in words the task does not use.
pub(super) const OTHER_ANSWERS: [[&str; 3]; 2] = [
    ["Hardly", "Barely", "Scarcely"],
    ["Certainly", "Absolutely", "Definitely"],
];
