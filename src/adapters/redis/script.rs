//! The scripts, and how one is called: by its hash, loaded where the server does not know it.

use std::sync::LazyLock;

use redis::{Cmd, ErrorKind, FromRedisValue, RedisResult, ServerErrorKind, Value, cmd};

use crate::ports::{StoreError, Watermark};

use super::connection::{Wire, store_error};

/// One script with what all scripts share in front. `#!lua` makes the server refuse it before it starts where memory
/// is full, never in the middle; one that only reads runs even then.
macro_rules! script {
    ($flags:literal, $file:literal) => {
        LazyLock::new(|| {
            redis::Script::new(concat!(
                "#!lua",
                $flags,
                "\n",
                include_str!("scripts/shared.lua"),
                "\n",
                include_str!(concat!("scripts/", $file))
            ))
        })
    };
}

pub(super) type Script = LazyLock<redis::Script>;

pub(super) static STATE: Script = script!(" flags=no-writes", "state.lua");
pub(super) static TOTALS: Script = script!(" flags=no-writes", "totals.lua");
pub(super) static RECENT: Script = script!(" flags=no-writes", "recent.lua");
pub(super) static TOP: Script = script!("", "top.lua");
pub(super) static USERS: Script = script!("", "users.lua");
pub(super) static REGISTER: Script = script!("", "register.lua");
pub(super) static APPLY: Script = script!("", "apply.lua");
pub(super) static FOLD: Script = script!("", "fold.lua");

/// A call of `script` on the generation that `generation_key` names; the caller adds the arguments.
pub(super) fn call(script: &redis::Script, generation_key: &str) -> Cmd {
    let mut command = cmd("EVALSHA");
    command.arg(script.get_hash()).arg(1).arg(generation_key);
    command
}

/// Runs a call made by [`call`], loading the script where the server lost it: nothing was done then.
pub(super) fn run(wire: &mut Wire, script: &redis::Script, command: &Cmd) -> RedisResult<Vec<Value>> {
    match wire.exchange(|connection| command.query(connection)) {
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
            wire.exchange(|connection| script.prepare_invoke().load(connection))?;
            wire.exchange(|connection| command.query(connection))
        }
        other => other,
    }
}

/// The values behind the first word of a reply, which says whether the script did its work.
pub(super) fn reply<T: FromRedisValue>(mut values: Vec<Value>) -> Result<T, StoreError> {
    if values.is_empty() {
        return Err(unexpected("an empty answer of a script"));
    }
    let word: String = from_value(values.remove(0))?;
    match word.as_str() {
        "ok" => from_value(Value::Array(values)),
        "lost" => Err(StoreError::Fenced { found: None }),
        "fenced" => {
            let (found,): (Option<String>,) = from_value(Value::Array(values))?;
            Err(StoreError::Fenced { found: found.as_deref().map(watermark).transpose()? })
        }
        other => Err(unexpected(other)),
    }
}

pub(super) fn run_reply<T: FromRedisValue>(
    wire: &mut Wire,
    script: &redis::Script,
    command: &Cmd,
) -> Result<T, StoreError> {
    reply(run(wire, script, command).map_err(|error| store_error(&error))?)
}

/// `position:crc`, as it is stored.
pub(super) fn watermark_text(watermark: Watermark) -> String {
    format!("{}:{}", watermark.position, watermark.crc)
}

pub(super) fn watermark(text: &str) -> Result<Watermark, StoreError> {
    let parse =
        |(position, crc): (&str, &str)| Some(Watermark { position: position.parse().ok()?, crc: crc.parse().ok()? });
    text.split_once(':').and_then(parse).ok_or_else(|| unexpected(text))
}

pub(super) fn from_value<T: FromRedisValue>(value: Value) -> Result<T, StoreError> {
    redis::from_redis_value(value).map_err(|error| unexpected(&error.to_string()))
}

pub(super) fn unexpected(what: &str) -> StoreError {
    StoreError::Fatal(format!("redis: not what our scripts answer or store: {what}"))
}
