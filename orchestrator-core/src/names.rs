//! Names for flow runs that were given none: an adjective and an animal.

const ADJECTIVES: [&str; 64] = [
    "able", "agile", "amber", "ample", "azure", "bold", "brave", "brisk", "bright", "calm", "candid", "clever",
    "copper", "cosmic", "crisp", "curious", "daring", "deft", "eager", "early", "earnest", "fabled", "fair", "fleet",
    "frank", "fresh", "gentle", "golden", "grand", "green", "happy", "hardy", "honest", "humble", "ideal", "jolly",
    "keen", "kind", "lively", "loyal", "lucid", "lucky", "merry", "mighty", "modest", "nimble", "noble", "patient",
    "polite", "proud", "quick", "quiet", "rapid", "robust", "serene", "sharp", "silver", "smart", "steady", "sunny",
    "swift", "vivid", "warm", "wise",
];

const ANIMALS: [&str; 64] = [
    "ant", "badger", "bat", "bear", "beaver", "bee", "bison", "boar", "buck", "camel", "cat", "cheetah", "condor",
    "coyote", "crab", "crane", "crow", "deer", "dolphin", "dove", "eagle", "eel", "elk", "falcon", "ferret", "finch",
    "fox", "frog", "gecko", "goose", "hare", "hawk", "heron", "ibex", "jackal", "jaguar", "koala", "lark", "lemur",
    "lion", "lynx", "mole", "moose", "newt", "orca", "otter", "owl", "panda", "pike", "puma", "quail", "rabbit",
    "raven", "robin", "salmon", "seal", "shark", "sloth", "stork", "swan", "tiger", "trout", "wolf", "yak",
];

/// A name such as `brave-otter`.
pub(crate) fn generate() -> String {
    let pick = |words: &[&'static str; 64]| words[fastrand::usize(..words.len())];
    format!("{}-{}", pick(&ADJECTIVES), pick(&ANIMALS))
}
