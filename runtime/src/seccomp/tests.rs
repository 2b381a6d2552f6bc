//! The compiler against the meaning of profiles for every system call number, and against libseccomp's programs.

mod libseccomp;

use super::evaluate::{AUDITS, Call, Meaning, calls, interesting, interpret};
use oci_spec::runtime::LinuxSeccomp;
use proptest::prelude::*;

use super::architecture::Architecture;
use super::rules::Newer;
use super::*;

/// A profile with everything the compiler knows.
const CONTAINERD: &str = include_str!("../../benches/configs/containerd.json");

fn containerd() -> LinuxSeccomp {
    let spec: oci_spec::runtime::Spec = serde_json::from_str(CONTAINERD).unwrap();
    spec.linux().as_ref().unwrap().seccomp().clone().unwrap()
}

fn profile(json: &str) -> LinuxSeccomp {
    serde_json::from_str(json).unwrap()
}

fn check_meaning(profile: &LinuxSeccomp, native: Architecture, newer: Newer) {
    let program = compile_for(profile, native, newer).unwrap();
    let meaning = Meaning::new(profile, native, newer);
    for call in calls(profile) {
        assert_eq!(interpret(&program.instructions, &call), Some(meaning.verdict(&call)), "{call:x?}");
    }
}

#[test]
fn containerd_s_profile_means_what_it_says() {
    for newer in [Newer::Enosys, Newer::Default] {
        check_meaning(&containerd(), Architecture::X86_64, newer);
    }
}

#[test]
fn the_other_architectures_have_numbers_of_their_own() {
    let mut arm = containerd();
    arm.set_architectures(Some(vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm]));
    check_meaning(&arm, Architecture::Aarch64, Newer::Enosys);
    arm.set_architectures(None);
    check_meaning(&arm, Architecture::Riscv64, Newer::Default);
}

#[test]
fn a_native_call_without_a_profile_for_x32_is_not_an_x32_call() {
    let program = compile(&profile(r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#)).unwrap();
    let verdict =
        |number| interpret(&program.instructions, &Call { audit: 0xc000_003e, number, arguments: [0; 6] });
    assert_eq!(
        (verdict(0x4000_0000), verdict(1), verdict(u32::MAX)),
        (Some(0), Some(0x7fff_0000), Some(0x7fff_0000))
    );
}

#[test]
fn calls_newer_than_the_profile_are_unknown_to_the_container() {
    let verdict = |json: &str, number| {
        interpret(
            &compile(&profile(json)).unwrap().instructions,
            &Call { audit: 0xc000_003e, number, arguments: [0; 6] },
        )
    };
    let denying = r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["clone3"], "action": "SCMP_ACT_ALLOW"}]}"#;
    assert_eq!((verdict(denying, 436), verdict(denying, 434)), (Some(action::ENOSYS), Some(0x0005_0001)));
    let logging = r#"{"defaultAction": "SCMP_ACT_LOG", "syscalls": [{"names": ["clone3"], "action": "SCMP_ACT_ALLOW"}]}"#;
    assert_eq!(verdict(logging, 436), Some(0x7ffc_0000));
}

#[test]
fn every_action_has_its_value() {
    for (name, value) in [
        ("KILL", 0),
        ("KILL_THREAD", 0),
        ("KILL_PROCESS", 0x8000_0000),
        ("TRAP", 0x0003_0000),
        ("ERRNO", 0x0005_0001),
        ("NOTIFY", 0x7fc0_0000),
        ("TRACE", 0x7ff0_0001),
        ("LOG", 0x7ffc_0000),
        ("ALLOW", 0x7fff_0000_u32),
    ] {
        let default = if name == "ALLOW" { "KILL" } else { "ALLOW" };
        let json = format!(
            r#"{{"defaultAction": "SCMP_ACT_{default}", "syscalls": [{{"names": ["getpid"], "action": "SCMP_ACT_{name}"}}]}}"#
        );
        let program = compile(&profile(&json)).unwrap();
        let call = Call { audit: 0xc000_003e, number: 39, arguments: [0; 6] };
        assert_eq!(interpret(&program.instructions, &call), Some(value), "{name}");
        assert_eq!(program.notifies(), name == "NOTIFY");
    }
}

#[test]
fn flags_become_those_of_the_system_call() {
    let flags = |flags: &str| {
        let json = format!(
            r#"{{"defaultAction": "SCMP_ACT_ALLOW", {flags}
                "syscalls": [{{"names": ["getpid"], "action": "SCMP_ACT_NOTIFY"}}]}}"#
        );
        compile(&profile(&json)).unwrap().flags & !FLAG_NEW_LISTENER
    };
    assert_eq!(flags(""), FLAG_SPEC_ALLOW);
    assert_eq!(flags(r#""flags": [],"#), 0);
    let all = r#""flags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],"#;
    assert_eq!(flags(all), FLAG_LOG | FLAG_SPEC_ALLOW | FLAG_WAIT_KILLABLE_RECV);
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    for (json, words) in [
        (r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#, "as default action"),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read", "write"], "action": "SCMP_ACT_NOTIFY"}]}"#,
            "for the write syscall",
        ),
        (r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_MIPS"]}"#, "SCMP_ARCH_MIPS"),
        (r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096}"#, "4096"),
        // config-linux.md: "When the action doesn't support an errno, the runtime MUST print and error and fail."
        (r#"{"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 5}"#, "SCMP_ACT_ALLOW takes no errnoRet"),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_KILL", "errnoRet": 5}]}"#,
            "SCMP_ACT_KILL takes no errnoRet",
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [], "action": "SCMP_ACT_KILL"}]}"#,
            "names no system call",
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}"#,
            "WAIT_KILLABLE_RECV",
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_KILL",
            "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}"#,
            "argument 6",
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_KILL",
            "args": [{"index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"}]}]}"#,
            "outside the mask",
        ),
    ] {
        let text = compile(&profile(json)).unwrap_err().to_string();
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn unknown_names_are_told_and_change_nothing() {
    let program = compile(&profile(
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["frobnicate", "getpid"], "action": "SCMP_ACT_KILL"}]}"#,
    ))
    .unwrap();
    assert_eq!(program.unknown_syscalls(), ["frobnicate"]);
}

#[test]
fn containerd_s_profile_is_small() {
    let length = compile(&containerd()).unwrap().instructions().len();
    assert!(length < 400, "{length} instructions");
}

/// How the rules of a generated profile relate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Rules {
    /// Many for one name, several conditions for one argument.
    Overlapping,
    /// One for a name, one condition for an argument, all but the last for equality.
    Distinct,
    /// The same, with constants of any size.
    DistinctWide,
}

/// Rules on every operator with constants that share halves; the actions of one name agree.
pub(super) fn any_profile(rules: Rules) -> impl Strategy<Value = LinuxSeccomp> {
    let wide = prop_oneof![0..6_u64, Just(u64::MAX), Just(1 << 32), Just((1 << 32) + 3), any::<u64>()];
    let narrow = prop_oneof![1..6_u64, 1..0xffff_ffff_u64];
    let constant = if rules == Rules::Distinct { narrow.boxed() } else { wide.boxed() };
    let operator = prop::sample::select(vec!["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"]);
    let argument = (0..3_usize, operator, constant.clone(), constant);
    let arguments = prop::collection::vec(argument, 0..4).prop_map(move |mut arguments| {
        if rules != Rules::Overlapping {
            arguments.sort_by_key(|(index, ..)| *index);
            arguments.dedup_by_key(|(index, ..)| *index);
            let last = arguments.len().saturating_sub(1);
            arguments[..last].iter_mut().for_each(|(_, operator, ..)| *operator = "EQ");
        }
        arguments
    });
    let mut names = vec!["read", "write", "getpid", "clone3", "fchmod", "openat", "open"];
    if rules != Rules::Distinct {
        names.extend(["socket", "accept", "shmat", "socketcall"]);
    }
    let rule = (prop::sample::select(names), arguments);
    let default = prop::sample::select(vec!["ALLOW", "ERRNO", "KILL_PROCESS"]);
    let list = prop::collection::vec(rule, 0..8).prop_map(move |mut list| {
        if rules != Rules::Overlapping {
            list.sort_by_key(|(name, _)| *name);
            list.dedup_by_key(|(name, _)| *name);
        }
        list
    });
    let x32 = if rules == Rules::Overlapping { "SCMP_ARCH_X32" } else { "SCMP_ARCH_X86" };
    (default, list).prop_map(move |(default, rules)| {
        let action = |name: &str| if name.len().is_multiple_of(2) { "TRAP" } else { "LOG" };
        let rules: Vec<_> = rules
            .iter()
            .map(|(name, arguments)| {
                let arguments: Vec<_> = arguments
                    .iter()
                    .map(|(index, operator, value, second)| {
                        let second = if *operator == "MASKED_EQ" { second & value } else { 0 };
                        serde_json::json!({ "index": index, "op": format!("SCMP_CMP_{operator}"), "value": value, "valueTwo": second })
                    })
                    .collect();
                serde_json::json!({ "names": [name], "action": format!("SCMP_ACT_{}", action(name)), "args": arguments })
            })
            .collect();
        serde_json::from_value(serde_json::json!({
            "defaultAction": format!("SCMP_ACT_{default}"),
            "architectures": ["SCMP_ARCH_X86", x32],
            "syscalls": rules,
        }))
        .unwrap()
    })
}

/// Arguments drawn from the profile's own constants.
pub(super) fn any_call(profile: &LinuxSeccomp) -> impl Strategy<Value = Call> + use<> {
    let values = prop::sample::select(interesting(profile));
    let named: Vec<u32> = vec![0, 1, 2, 3, 5, 30, 39, 41, 43, 57, 91, 94, 102, 117, 257, 295, 359, 397, 435];
    let number = prop_oneof![prop::sample::select(named), 0..470_u32];
    let audit = prop::sample::select(AUDITS[..3].to_vec());
    (audit, number, any::<bool>(), prop::array::uniform6(values)).prop_map(
        |(audit, number, x32, arguments)| {
            let number = if x32 { number | 0x4000_0000 } else { number };
            Call { audit, number, arguments }
        },
    )
}

proptest! {
    #[test]
    fn any_profile_means_what_it_says(
        (profile, calls) in any_profile(Rules::Overlapping).prop_flat_map(|profile| {
            let calls = prop::collection::vec(any_call(&profile), 200);
            (Just(profile), calls)
        })
    ) {
        let program = compile_for(&profile, Architecture::X86_64, Newer::Default).unwrap();
        let meaning = Meaning::new(&profile, Architecture::X86_64, Newer::Default);
        for call in calls {
            prop_assert_eq!(interpret(&program.instructions, &call), Some(meaning.verdict(&call)), "{:x?}", call);
        }
    }

    #[test]
    fn any_names_are_compiled_or_refused(names in prop::collection::vec(".{0,40}", 1..20)) {
        let json = serde_json::json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{ "names": names, "action": "SCMP_ACT_ALLOW" }],
        });
        let program = compile(&serde_json::from_value(json).unwrap()).unwrap();
        prop_assert!(program.unknown_syscalls().len() <= names.len());
    }
}
