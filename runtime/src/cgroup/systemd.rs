//! The systemd driver: a transient scope over D-Bus, on an executor of the calling thread alone.

use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use oci_spec::runtime::LinuxResources;
use rustix::process::Pid;
use zbus::export::futures_core::Stream;
use zbus::message::Type;
use zbus::wire::{DynamicDeserialize, OwnedObjectPath, OwnedVariant, Variant};
use zbus::{Connection, MatchRule, MessageStream, connection};

use super::devices::Rules;
use super::error::CgroupError;
use super::plan::Scope;
use super::properties::{self, Properties, Value};
use crate::user_namespace;

const DESTINATION: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// How long runc waits for a job.
const BOUND: Duration = Duration::from_secs(30);

/// Starts the scope around `init` and waits for it. Gives the cgroup of the user's systemd, for a user's scope.
pub(super) fn start_scope<'a>(
    scope: &Scope,
    init: Pid,
    resources: &LinuxResources,
    annotations: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<Option<PathBuf>, CgroupError> {
    let mut properties = properties::scope_properties(
        &scope.description,
        &scope.slice,
        init.as_raw_nonzero().get().cast_unsigned(),
    );
    properties.extend(properties::limits(resources)?);
    properties.extend(properties::devices(&Rules::from_spec(resources.devices().iter().flatten())?));
    properties.extend(properties::from_annotations(annotations)?);
    run(async {
        let systemd = Systemd::connect(scope).await?;
        let oom_policy = match resources.unified() {
            Some(_) => properties::oom_policy(resources, systemd.version().await?),
            None => None,
        };
        properties.extend(oom_policy);
        systemd.start(properties).await?;
        match scope.user_bus {
            Some(_) => systemd.manager_cgroup().await.map(Some),
            None => Ok(None),
        }
    })
}

/// Sets the limits of a running scope, until it ends (`runtime`).
pub(super) fn set_properties(scope: &Scope, resources: &LinuxResources) -> Result<(), CgroupError> {
    let properties = properties::limits(resources)?;
    if properties.is_empty() {
        return Ok(());
    }
    run(async {
        let systemd = Systemd::connect(scope).await?;
        let body = (scope.unit.as_str(), true, variants(properties));
        systemd.call("change", "SetUnitProperties", &body).await
    })
}

/// Whose the unit of a scope's name is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ScopeOwner {
    /// It was started for this very container.
    Container,
    /// For something else, before the container came to start its own or after that had ended.
    Other,
    /// There is none.
    Nobody,
}

/// Asks whose the scope is.
pub(super) fn owner(scope: &Scope) -> Result<ScopeOwner, CgroupError> {
    run(async { Systemd::connect(scope).await?.owner().await })
}

/// Stops the scope, if it is the container's, and waits for it.
pub(super) fn stop_scope(scope: &Scope) -> Result<ScopeOwner, CgroupError> {
    run(async {
        let systemd = Systemd::connect(scope).await?;
        let owner = systemd.owner().await?;
        if owner != ScopeOwner::Container {
            return Ok(owner);
        }
        let stopped = systemd.job("stop", "StopUnit", &(scope.unit.as_str(), "replace")).await;
        match stopped {
            // It has ended meanwhile.
            Err(CgroupError::Unit { source, .. }) if is_named(&*source, "NoSuchUnit") => return Ok(owner),
            result => result?,
        }
        systemd.forget_failure().await?;
        Ok(owner)
    })
}

/// Runs a future on this thread: the executor has no others.
fn run<T>(future: impl Future<Output = Result<T, CgroupError>>) -> Result<T, CgroupError> {
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let executor = executor
        .map_err(|source| CgroupError::Bus { bus: "a D-Bus connection".to_owned(), source: source.into() })?;
    executor.block_on(future)
}

struct Systemd<'a> {
    connection: Connection,
    scope: &'a Scope,
}

impl<'a> Systemd<'a> {
    async fn connect(scope: &'a Scope) -> Result<Self, CgroupError> {
        let (bus, connection) = match &scope.user_bus {
            Some(address) => (address.clone(), build(user_builder(address)).await),
            // Not systemd's own socket: what comes from there has a sender that zbus takes for no unique name.
            None => ("the system bus".to_owned(), build(connection::Builder::system()).await),
        };
        let connection = connection.map_err(|source| CgroupError::Bus { bus, source: source.into() })?;
        Ok(Systemd { connection, scope })
    }

    /// Starts the unit. One of that name that has failed is in the way until it is forgotten.
    async fn start(&self, properties: Properties) -> Result<(), CgroupError> {
        let unit = self.scope.unit.as_str();
        let auxiliary: Vec<(String, Vec<(String, Variant<'_>)>)> = Vec::new();
        let body = (unit, "replace", variants(properties), auxiliary);
        match self.job("start", "StartTransientUnit", &body).await {
            Err(CgroupError::Unit { source, .. }) if is_named(&*source, "UnitExists") => {
                self.forget_failure().await?;
                self.job("start", "StartTransientUnit", &body).await
            }
            result => result,
        }
    }

    /// Calls a method that gives a job, and waits for the job to end. The signal is listened for before the call.
    async fn job<B>(&self, operation: &'static str, method: &'static str, body: &B) -> Result<(), CgroupError>
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        let refused = |source: zbus::Error| self.refused(operation, source);
        let rule =
            MatchRule::builder().msg_type(Type::Signal).interface(MANAGER).member("JobRemoved").build();
        let rule = rule.map_err(refused)?;
        let mut signals =
            MessageStream::for_match_rule(rule, &self.connection, None).await.map_err(refused)?;
        match self.call::<(), _>(operation, "Subscribe", &()).await {
            // The second job of one connection.
            Err(CgroupError::Unit { source, .. }) if is_named(&*source, "AlreadySubscribed") => {}
            result => result?,
        }
        let job: OwnedObjectPath = self.call(operation, method, body).await?;
        let result = tokio::time::timeout(BOUND, wait_for(&mut signals, &job)).await;
        let seconds = BOUND.as_secs();
        let unit = self.scope.unit.clone();
        let result = match result {
            Ok(result) => result.map_err(refused)?,
            Err(_) => return Err(CgroupError::Timeout { operation, path: PathBuf::from(unit), seconds }),
        };
        if result == "done" { Ok(()) } else { Err(CgroupError::Job { operation, unit, result }) }
    }

    async fn forget_failure(&self) -> Result<(), CgroupError> {
        match self.call::<(), _>("reset", "ResetFailedUnit", &(self.scope.unit.as_str(),)).await {
            // Usually systemd has dropped it by now.
            Err(CgroupError::Unit { source, .. }) if is_named(&*source, "NoSuchUnit") => Ok(()),
            result => result,
        }
    }

    /// By the unit's description, which is set in the same call that makes the unit.
    async fn owner(&self) -> Result<ScopeOwner, CgroupError> {
        let unit = self.call::<OwnedObjectPath, _>("find", "GetUnit", &(self.scope.unit.as_str(),)).await;
        let unit = match unit {
            Err(CgroupError::Unit { source, .. }) if is_named(&*source, "NoSuchUnit") => {
                return Ok(ScopeOwner::Nobody);
            }
            result => result?,
        };
        match self.property(unit.as_str(), UNIT, "Description").await {
            Ok(description) if description == self.scope.description => Ok(ScopeOwner::Container),
            Ok(_) => Ok(ScopeOwner::Other),
            // It has ended meanwhile.
            Err(CgroupError::Unit { source, .. }) if is_named(&*source, "UnknownObject") => {
                Ok(ScopeOwner::Nobody)
            }
            Err(error) => Err(error),
        }
    }

    async fn version(&self) -> Result<u32, CgroupError> {
        let text = self.property(PATH, MANAGER, "Version").await?;
        let digits = text.trim_start_matches(|first: char| !first.is_ascii_digit());
        let end = digits.find(|other: char| !other.is_ascii_digit()).unwrap_or(digits.len());
        Ok(digits[..end].parse().unwrap_or(0))
    }

    /// The cgroup of the systemd itself, without its leading slash.
    async fn manager_cgroup(&self) -> Result<PathBuf, CgroupError> {
        let cgroup = self.property(PATH, MANAGER, "ControlGroup").await?;
        Ok(PathBuf::from(cgroup.trim_start_matches('/')))
    }

    /// A property that is a text.
    async fn property(&self, path: &str, interface: &str, name: &str) -> Result<String, CgroupError> {
        let refused = |source: zbus::Error| self.refused("ask about", source);
        let body = (interface, name);
        let call = self.connection.call_method(Some(DESTINATION), path, Some(PROPERTIES), "Get", &body);
        let reply = tokio::time::timeout(BOUND, call).await;
        let reply = reply.map_err(|_| refused(zbus::Error::InputOutput(io_timeout())))?;
        let value: OwnedVariant = reply.map_err(refused)?.body().deserialize().map_err(refused)?;
        String::try_from(value).map_err(|_| refused(zbus::Error::InvalidReply))
    }

    async fn call<R, B>(
        &self,
        operation: &'static str,
        method: &'static str,
        body: &B,
    ) -> Result<R, CgroupError>
    where
        R: for<'b> DynamicDeserialize<'b>,
        B: serde::Serialize + zbus::DynamicType,
    {
        let refused = |source: zbus::Error| self.refused(operation, source);
        let call = self.connection.call_method(Some(DESTINATION), PATH, Some(MANAGER), method, body);
        let reply = tokio::time::timeout(BOUND, call).await;
        let reply = reply.map_err(|_| refused(zbus::Error::InputOutput(io_timeout())))?.map_err(refused)?;
        reply.body().deserialize().map_err(refused)
    }

    fn refused(&self, operation: &'static str, source: zbus::Error) -> CgroupError {
        CgroupError::Unit { operation, unit: self.scope.unit.clone(), source: source.into() }
    }
}

fn io_timeout() -> std::sync::Arc<std::io::Error> {
    std::sync::Arc::new(std::io::ErrorKind::TimedOut.into())
}

/// The user's bus knows root of the user's own namespace as that user.
fn user_builder(address: &str) -> connection::Builder<'_> {
    let builder = connection::Builder::address(address);
    match user_namespace::owner_outside() {
        Some(uid) => builder.user_id(uid),
        None => builder,
    }
}

async fn build(builder: connection::Builder<'_>) -> Result<Connection, zbus::Error> {
    builder.build().await
}

/// Waits for the end of a job and gives systemd's word for it. Other jobs end all the while.
async fn wait_for(signals: &mut MessageStream, job: &OwnedObjectPath) -> Result<String, zbus::Error> {
    while let Some(message) = poll_fn(|context| Pin::new(&mut *signals).poll_next(context)).await {
        let message = message?;
        let body = message.body();
        let (_id, path, _unit, result): (u32, OwnedObjectPath, String, String) = body.deserialize()?;
        if path == *job {
            return Ok(result);
        }
    }
    Err(zbus::Error::InputOutput(std::sync::Arc::new(std::io::ErrorKind::UnexpectedEof.into())))
}

/// Whether systemd's answer is the error of this name.
fn is_named(error: &(dyn std::error::Error + Send + Sync + 'static), name: &str) -> bool {
    match error.downcast_ref::<zbus::Error>() {
        Some(zbus::Error::MethodError(full, _, _)) => full.as_str().rsplit('.').next() == Some(name),
        _ => false,
    }
}

fn variants(properties: Properties) -> Vec<(String, Variant<'static>)> {
    properties.into_iter().map(|(name, value)| (name, variant(value))).collect()
}

fn variant(value: Value) -> Variant<'static> {
    match value {
        Value::Flag(flag) => Variant::from(flag),
        Value::Number(number) => Variant::from(number),
        Value::Integer(number) => Variant::from(number),
        Value::Unsigned(number) => Variant::from(number),
        Value::Long(number) => Variant::from(number),
        Value::Real(number) => Variant::from(number),
        Value::Text(text) => Variant::from(text),
        Value::Texts(texts) => Variant::from(texts),
        Value::Bytes(bytes) => Variant::from(bytes),
        Value::Pids(pids) => Variant::from(pids),
        Value::Pairs(pairs) => Variant::from(pairs),
    }
}
