//! Bitstreams as trees: read by the reader under test, written by the writer under test, and changed
//! in ways that keep them bitstreams.

use fastrand::Rng;
use ldwrap::jobs::bitcode::Malformed;
pub use ldwrap::jobs::bitcode::made_up::{Node, encode};
use ldwrap::jobs::bitcode::reader::{BitstreamEntry, Reader};

/// Reads a whole stream, every block entered.
pub fn decode(bytes: &[u8]) -> Result<Vec<Node>, Malformed> {
    let mut reader = Reader::new(bytes)?;
    let mut open: Vec<(u64, u32, Vec<Node>)> = Vec::new();
    let mut top = Vec::new();
    loop {
        let node = match reader.next()? {
            BitstreamEntry::Block(b) => {
                reader.enter()?;
                open.push((b.id, b.width, Vec::new()));
                continue;
            }
            BitstreamEntry::Record(code) => {
                Node::Record(code, reader.ops().to_vec(), reader.blob().map(Vec::from))
            }
            BitstreamEntry::End(_) => {
                let (id, width, nodes) = open.pop().expect("what ends has begun");
                Node::Block(id, width, nodes)
            }
            BitstreamEntry::Eof => {
                assert!(open.is_empty(), "the stream ends within a block");
                return Ok(top);
            }
        };
        open.last_mut().map_or(&mut top, |o| &mut o.2).push(node);
    }
}

/// libFuzzer's own mutation, or a few changes of the tree.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let mut random = Rng::with_seed(seed.into());
    if random.bool()
        && let Ok(mut nodes) = decode(&data[..size])
    {
        for _ in 0..=random.usize(..3) {
            change(&mut nodes, &mut random);
        }
        if let Some(new) = encode(&nodes).filter(|new| new.len() <= max_size) {
            data[..new.len()].copy_from_slice(&new);
            return new.len();
        }
    }
    libfuzzer_sys::fuzzer_mutate(data, size, max_size)
}

fn count(nodes: &[Node]) -> usize {
    let inner = |node: &Node| match node {
        Node::Block(_, _, nodes) => 1 + count(nodes),
        Node::Record(..) => 1,
    };
    nodes.iter().map(inner).sum()
}

/// Calls `f` with the list that has node `n` of all, counted depth first, and its place there.
fn at(nodes: &mut Vec<Node>, n: &mut usize, f: &mut dyn FnMut(&mut Vec<Node>, usize)) -> bool {
    for i in 0..nodes.len() {
        if *n == 0 {
            f(nodes, i);
            return true;
        }
        *n -= 1;
        if let Node::Block(_, _, inner) = &mut nodes[i]
            && at(inner, n, f)
        {
            return true;
        }
    }
    false
}

fn change(nodes: &mut Vec<Node>, random: &mut Rng) {
    let mut n = random.usize(..count(nodes).max(1));
    at(nodes, &mut n, &mut |list, i| change_at(list, i, random));
}

fn change_at(list: &mut Vec<Node>, i: usize, random: &mut Rng) {
    match random.usize(..8) {
        0 => drop(list.remove(i)),
        1 => list.insert(i, list[i].clone()),
        2 => {
            let j = random.usize(..list.len());
            list.swap(i, j);
        }
        3 => {
            let inner = vec![list[i].clone()];
            list[i] = Node::Block(block_id(random), 3, inner);
        }
        4 => list.insert(i, Node::Block(block_id(random), 4, Vec::new())),
        _ => match &mut list[i] {
            Node::Block(id, width, _) => {
                if random.bool() {
                    *id = block_id(random);
                } else {
                    *width = 2 + random.usize(..31) as u32;
                }
            }
            Node::Record(code, ops, _) => {
                let value = value(random, ops);
                let at = random.usize(..ops.len() + 1);
                match random.usize(..5) {
                    0 => *code = random.usize(..32) as u64,
                    1 => ops.insert(at, value),
                    2 => ops.truncate(at),
                    _ => match ops.get_mut(at) {
                        Some(op) => *op = value,
                        None => ops.push(value),
                    },
                }
            }
        },
    }
}

fn block_id(random: &mut Rng) -> u64 {
    [8, 19, 20, 23, 24, 13, 0, 25][random.usize(..8)]
}

fn value(random: &mut Rng, ops: &[u64]) -> u64 {
    let old = random.choice(ops).copied().unwrap_or(0);
    match random.usize(..8) {
        0 => random.usize(..4) as u64,
        1 => random.usize(..256) as u64,
        2 => old.wrapping_add(1),
        3 => old ^ 1 << random.usize(..64),
        4 => u64::from(u32::MAX) + random.usize(..2) as u64,
        5 => u64::MAX - random.usize(..2) as u64,
        6 => old,
        _ => random.u64(..),
    }
}
