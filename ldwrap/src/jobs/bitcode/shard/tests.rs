use super::*;
use crate::jobs::bitcode::made_up::{Node, encode};

fn stream(nodes: &[Node]) -> Vec<u8> {
    encode(nodes).unwrap()
}

fn module(paths: Vec<Node>, summaries: Vec<Node>) -> Vec<u8> {
    let parts = vec![
        Node::block(block::MODULE_STRTAB, paths),
        Node::block(block::GLOBALVAL_SUMMARY, summaries),
    ];
    stream(&[Node::block(block::MODULE, parts)])
}

fn path(id: u64) -> Node {
    Node::record(MST_ENTRY, vec![id, u64::from(b'a')])
}

fn why(bytes: &[u8]) -> &'static str {
    match Shard::parse(bytes) {
        Err(Malformed::Shape(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn imports_come_in_the_order_of_their_names() {
    let entry = |id: u64, name: &str, hash: u64| {
        let name = name.bytes().map(u64::from);
        [
            Node::record(
                MST_ENTRY,
                std::iter::once(id).chain(name).collect::<Vec<_>>(),
            ),
            Node::record(MST_HASH, vec![hash, 0, 0, 0, 0]),
        ]
    };
    let imports = |modules: &[[Node; 2]]| {
        let shard = module(modules.concat(), Vec::new());
        let hashes = imports_in_order(&shard, b"own.o");
        hashes.map(|hashes| hashes.iter().map(|hash| hash[0]).collect::<Vec<_>>())
    };
    let own = entry(0, "own.o", 1);
    let of = |a: &str, b: &str| imports(&[entry(2, a, 7), own.clone(), entry(1, b, 9)]);
    assert_eq!(of("a.o", "b.o"), Ok(vec![7, 9]));
    assert_eq!(of("z.o", "b.o"), Ok(vec![9, 7]));
    assert_eq!(imports(std::slice::from_ref(&own)), Ok(Vec::new()));
    let without = Malformed::Shape("a module without a hash");
    assert_eq!(imports(&[own, entry(1, "a.o", 0)]), Err(without));
}

#[test]
fn what_an_object_must_define() {
    let of_record = |code, flags, more| {
        let records = vec![
            Node::record(VERSION, vec![9]),
            Node::record(VALUE_GUID, vec![1, 7]),
            Node::record(code, vec![1, 0, flags, more]),
        ];
        let bytes = module(vec![path(0)], records);
        Shard::parse(&bytes).unwrap().summaries[0].definition
    };
    let of = |flags| of_record(COMBINED, flags, 3);
    for (more, definition) in [
        (0, Definition::Strong),
        (1, Definition::None),
        (2, Definition::None),
        (4, Definition::Strong),
    ] {
        assert_eq!(of_record(COMBINED_GLOBALVAR, FLAG_LIVE, more), definition);
    }
    for (linkage, definition) in [
        (EXTERNAL, Definition::Strong),
        (1, Definition::None),
        (3, Definition::None),
        (WEAK_ANY, Definition::Weak),
        (WEAK_ODR, Definition::Weak),
        (APPENDING, Definition::Local),
        (7, Definition::None),
    ] {
        let other_flags = FLAG_DSO_LOCAL | 1 << 4 | 1 << 7;
        assert_eq!(of(linkage | FLAG_LIVE), definition, "{linkage}");
        assert_eq!(of(linkage | FLAG_LIVE | other_flags), definition);
        assert_eq!(of(linkage | other_flags), Definition::None);
    }
}

#[test]
fn paths_of_unknown_forms() {
    let hash = |words: &[u64]| Node::record(MST_HASH, words.to_vec());
    let of = |paths| why(&module(paths, Vec::new()));
    assert_eq!(of(vec![path(0), path(0)]), "two modules of one number");
    let wide = Node::record(MST_ENTRY, vec![0, 256]);
    assert_eq!(of(vec![wide]), "a module path not of bytes");
    let odd = "a hash of an unknown form";
    assert_eq!(of(vec![path(0), hash(&[1, 2, 3, 4])]), odd);
    assert_eq!(of(vec![path(0), hash(&[1, 2, 3, 4, 1 << 32])]), odd);
    let twice = vec![path(0), hash(&[0; 5]), hash(&[1; 5])];
    assert_eq!(of(twice), "a hash of no module");
    assert_eq!(of(vec![hash(&[1; 5])]), "a hash of no module");
    assert_eq!(
        of(vec![Node::record(3, vec![0])]),
        "a module path of an unknown form"
    );
}

#[test]
fn summaries_of_unknown_forms() {
    let guid = |ops: &[u64]| Node::record(VALUE_GUID, ops.to_vec());
    let of = |records| {
        let version = Node::record(VERSION, vec![11]);
        let records = std::iter::once(version).chain(records).collect();
        why(&module(vec![path(0)], records))
    };
    let global = |value, module| Node::record(COMBINED_GLOBALVAR, vec![value, module, 0, 0]);
    let two = "GUIDs of two forms";
    assert_eq!(of(vec![guid(&[1, 2]), guid(&[2, 3, 4])]), two);
    assert_eq!(of(vec![Node::record(VERSION, vec![11])]), "two versions");
    let first = |first, guid| why(&module(vec![path(0)], vec![first, guid]));
    assert_eq!(first(Node::record(VERSION, vec![9]), guid(&[2, 3, 4])), two);
    assert_eq!(first(Node::record(VERSION, vec![12]), guid(&[2, 3])), two);
    let unknown = "summaries of an unknown version";
    for ops in [vec![], vec![8], vec![13], vec![9, 9]] {
        assert_eq!(first(Node::record(VERSION, ops), guid(&[2, 3])), unknown);
    }
    assert_eq!(
        first(guid(&[2, 3]), Node::record(VERSION, vec![9])),
        unknown
    );
    assert_eq!(why(&module(vec![path(0)], Vec::new())), unknown);
    let twice = vec![guid(&[1, 2]), guid(&[1, 3])];
    assert_eq!(of(twice), "two GUIDs of one value number");
    assert_eq!(
        of(vec![guid(&[1, 1 << 32, 0])]),
        "a GUID of an unknown form"
    );
    assert_eq!(of(vec![guid(&[1 << 32, 1])]), MANY_VALUES);
    assert_eq!(of(vec![global(1, 0)]), "a summary without a GUID");
    let stranger = vec![guid(&[1, 2]), global(1, 7)];
    assert_eq!(of(stranger), "a summary in a module without a path");
}

#[test]
fn parts_in_unknown_places() {
    let paths = || Node::block(block::MODULE_STRTAB, vec![path(0)]);
    let summaries = || {
        Node::block(
            block::GLOBALVAL_SUMMARY,
            vec![Node::record(VERSION, vec![9])],
        )
    };
    let of = |nodes| why(&stream(&[Node::block(block::MODULE, nodes)]));
    let alone = "a part of an index not in a module block";
    // Lengths of blocks in between would not be changed by a splice.
    assert_eq!(
        of(vec![Node::block(block::MODULE, vec![paths()]), summaries()]),
        alone
    );
    assert_eq!(
        of(vec![paths(), Node::block(block::MODULE, vec![summaries()])]),
        alone
    );
    assert_eq!(why(&stream(&[paths()])), alone);
    assert_eq!(
        of(vec![summaries(), paths()]),
        "summaries before the module paths"
    );
    assert_eq!(
        of(vec![paths(), paths(), summaries()]),
        "two tables of module paths"
    );
    let apart = stream(&[
        Node::block(block::MODULE, vec![paths()]),
        Node::block(block::MODULE, vec![summaries()]),
    ]);
    assert_eq!(why(&apart), "module paths outside the summaries' module");
}

#[test]
fn what_is_not_added() {
    let empty = module(vec![path(3)], vec![Node::record(VERSION, vec![11])]);
    let shard = Shard::parse(&empty).unwrap();
    assert!(shard.rewrite(0, &[], <[u8]>::to_vec).is_err());
    assert_eq!(shard.rewrite(3, &[], <[u8]>::to_vec), Ok(empty.clone()));
    // Nothing says whether a GUID is one operand or two.
    assert!(shard.rewrite(3, &[1], <[u8]>::to_vec).is_err());
    for version in [9, 10, 12] {
        let bytes = module(vec![path(3)], vec![Node::record(VERSION, vec![version])]);
        let shard = Shard::parse(&bytes).unwrap();
        let new = shard.rewrite(3, &[1], <[u8]>::to_vec).unwrap();
        assert_eq!(Shard::parse(&new).unwrap().summaries[0].guid, 1);
    }
    let last = vec![
        Node::record(VERSION, vec![9]),
        Node::record(VALUE_GUID, vec![MAX_VALUES - 2, 5]),
    ];
    let bytes = module(vec![path(3)], last);
    let shard = Shard::parse(&bytes).unwrap();
    assert!(shard.rewrite(3, &[1], <[u8]>::to_vec).is_ok());
    assert!(shard.rewrite(3, &[1, 2], <[u8]>::to_vec).is_err());
}
