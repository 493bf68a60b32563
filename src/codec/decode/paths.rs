//! Finding the fields that are read: by their exact name, or by a path of names with dots between
//! them.
//!
//! The field `customer.age` is the event's key `customer.age` where it has one, else the key `age`
//! of the object under `customer`. Wherever both could be meant, the longer key wins.

/// The keys that matter in one object: those of the event, or of an object inside it.
#[derive(Debug, Default)]
pub(super) struct Node {
    entries: Vec<Entry>,
    table: Table,
}

/// One key that matters.
#[derive(Debug)]
pub(super) struct Entry {
    key: String,
    /// The key, its quote and the colon, eight bytes at a time, each with a mask; empty where the key
    /// does not stand in an event as it is, for characters that JSON escapes.
    words: Vec<(u64, u64)>,
    /// The field whose name, or the rest of it, this key is.
    pub(super) field: Option<usize>,
    /// The object under this key that fields lie in: its node.
    pub(super) child: Option<usize>,
}

impl Entry {
    /// The key itself.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// The key, if events have it as it is: without characters that JSON escapes.
    pub(super) fn as_written(&self) -> Option<&str> {
        as_written(&self.key)
    }

    fn new(key: &str) -> Self {
        let text = as_written(key).map_or_else(String::new, |key| format!("{key}\":"));
        let words = text.as_bytes().chunks(8).map(|part| {
            let (mut word, mut mask) = ([0; 8], [0; 8]);
            for ((to, all), from) in word.iter_mut().zip(&mut mask).zip(part) {
                (*to, *all) = (*from, u8::MAX);
            }
            (u64::from_le_bytes(word), u64::from_le_bytes(mask))
        });
        Self {
            key: key.to_owned(),
            words: words.collect(),
            field: None,
            child: None,
        }
    }

    /// Whether `text` begins with the key, its quote and a colon. No where `text` ends soon after.
    #[inline]
    fn begins(&self, text: &[u8]) -> bool {
        let (words, _) = text.as_chunks();
        let mut pairs = self.words.iter().zip(words);
        words.len() >= self.words.len()
            && !self.words.is_empty()
            && pairs.all(|((word, mask), have)| u64::from_le_bytes(*have) & mask == *word)
    }
}

fn as_written(key: &str) -> Option<&str> {
    let escaped = |byte: u8| byte < 0x20 || matches!(byte, b'"' | b'\\');
    (!key.bytes().any(escaped)).then_some(key)
}

/// All keys that matter. The first node is the event.
#[derive(Debug)]
pub(super) struct Paths {
    nodes: Vec<Node>,
}

/// The index of the event's node.
pub(super) const EVENT: usize = 0;

impl Paths {
    /// The paths to the fields called `names`, in the order of their indices.
    pub(super) fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut paths = Self {
            nodes: vec![Node::default()],
        };
        for (field, name) in names.into_iter().enumerate() {
            paths.add(field, name);
        }
        for node in &mut paths.nodes {
            node.table = Table::new(&node.entries);
        }
        paths
    }

    fn add(&mut self, field: usize, name: &str) {
        let (mut node, mut rest) = (EVENT, name);
        loop {
            if let Some(entry) = self.entry(node, rest) {
                entry.field = Some(field);
            }
            let Some((head, tail)) = rest.split_once('.') else {
                return;
            };
            if head.is_empty() || tail.is_empty() {
                return;
            }
            let new = self.nodes.len();
            let Some(entry) = self.entry(node, head) else {
                return;
            };
            let child = *entry.child.get_or_insert(new);
            if child == new {
                self.nodes.push(Node::default());
            }
            (node, rest) = (child, tail);
        }
    }

    /// The entry of `key`, added if it is new. Linear: only while the paths are built.
    fn entry(&mut self, node: usize, key: &str) -> Option<&mut Entry> {
        let entries = &mut self.nodes.get_mut(node)?.entries;
        let known = entries.iter().position(|entry| entry.key == key);
        let index = known.unwrap_or_else(|| {
            entries.push(Entry::new(key));
            entries.len() - 1
        });
        entries.get_mut(index)
    }

    /// What `key` means in the object of `node`.
    pub(super) fn find(&self, node: usize, key: &str) -> Option<&Entry> {
        let node = self.nodes.get(node)?;
        let index = node.table.find(key, &node.entries)?;
        node.entries.get(index)
    }

    /// The same for the event's own keys. `hint` is the entry that the key in this place had in
    /// the last event, and becomes the one that is found: events of a topic are written by one
    /// program, in one order.
    pub(super) fn find_hinted(&self, key: &str, hint: &mut usize) -> Option<&Entry> {
        let node = self.nodes.get(EVENT)?;
        if let Some(entry) = node.entries.get(*hint).filter(|entry| entry.key == key) {
            return Some(entry);
        }
        let index = node.table.find(key, &node.entries)?;
        *hint = index;
        node.entries.get(index)
    }

    /// The entries of the event's own keys.
    pub(super) fn of_event(&self) -> &[Entry] {
        let event = self.nodes.get(EVENT);
        event.map_or(&[], |node| node.entries.as_slice())
    }

    /// The entry `hint` of the event's own keys, if `text` begins with its key, a quote and a colon;
    /// and how long that is.
    #[inline]
    pub(super) fn guessed(&self, text: &[u8], hint: usize) -> Option<(&Entry, usize)> {
        let entry = self.nodes.get(EVENT)?.entries.get(hint)?;
        entry.begins(text).then(|| (entry, entry.key.len() + 2))
    }

    /// How many nodes there are.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }
}

/// Hash table from key to entry, made once; no allocation and no `SipHash` for each key of
/// an event. Events cannot degrade it: its entries come from the contract.
#[derive(Debug, Default)]
struct Table {
    /// Index + 1 of an entry, 0 where empty; the length is a power of two, at most half full.
    slots: Vec<u32>,
}

impl Table {
    fn new(entries: &[Entry]) -> Self {
        let mut slots = vec![0; (entries.len() * 2).next_power_of_two().max(2)];
        for (index, entry) in entries.iter().enumerate() {
            let mut at = hash(entry.key.as_bytes()) as usize & (slots.len() - 1);
            while slots.get(at).is_some_and(|slot| *slot != 0) {
                at = (at + 1) & (slots.len() - 1);
            }
            if let Some(slot) = slots.get_mut(at) {
                *slot = index as u32 + 1;
            }
        }
        Self { slots }
    }

    fn find(&self, key: &str, entries: &[Entry]) -> Option<usize> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut at = hash(key.as_bytes()) as usize & mask;
        loop {
            let index = self.slots.get(at)?.checked_sub(1)? as usize;
            if entries.get(index)?.key == key {
                return Some(index);
            }
            at = (at + 1) & mask;
        }
    }
}

/// The Fx hash with its high bits folded in, eight bytes at a time.
fn hash(bytes: &[u8]) -> u64 {
    const K: u64 = 0x517c_c1b7_2722_0a95;
    let mut hash = bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        for (to, from) in word.iter_mut().zip(chunk) {
            *to = *from;
        }
        hash = (hash.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(K);
    }
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_at_every_depth() {
        let paths = Paths::new(["a.b.c", "a", "a.d", ".x", "y."]);
        let field = |node, key: &str| paths.find(node, key).and_then(|entry| entry.field);
        let child = |node, key: &str| paths.find(node, key).and_then(|entry| entry.child);
        assert_eq!(field(EVENT, "a.b.c"), Some(0));
        assert_eq!(field(EVENT, "a"), Some(1));
        let a = child(EVENT, "a").unwrap();
        assert_eq!(field(a, "b.c"), Some(0));
        assert_eq!(field(a, "d"), Some(2));
        let b = child(a, "b").unwrap();
        assert_eq!(field(b, "c"), Some(0));
        assert_eq!(field(a, "c"), None);
        // A dot at an end divides nothing.
        assert_eq!((field(EVENT, ".x"), child(EVENT, "")), (Some(3), None));
        assert_eq!((field(EVENT, "y."), child(EVENT, "y")), (Some(4), None));
        assert_eq!(Paths::new(["a", "b."]).len(), 1);
        assert_eq!(paths.len(), 3);
    }
}
