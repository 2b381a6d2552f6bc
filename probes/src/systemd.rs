//! systemd over D-Bus: units and jobs (org.freedesktop.systemd1, the interface's manual page of that name).
//!
//! The system bus is asked first; a node without a message bus has systemd's own socket, which root may use.

use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use thiserror::Error;
use tokio::time::timeout;
use zbus::export::futures_core::Stream;
use zbus::message::Type;
use zbus::wire::{DynamicDeserialize, OwnedObjectPath, OwnedVariant};
use zbus::{Connection, MatchRule, MessageStream};

use crate::name::{Pid, UnitName};

const DESTINATION: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";
/// What `Subscribe` answers the second time over one connection.
const ALREADY_SUBSCRIBED: &str = "org.freedesktop.systemd1.AlreadySubscribed";
const PRIVATE_SOCKET: &str = "unix:path=/run/systemd/private";

/// What systemd could not be asked or would not do.
#[derive(Debug, Error)]
pub enum SystemdError {
    /// Neither the bus nor systemd's own socket answers.
    #[error("cannot connect to systemd")]
    Connect {
        /// What the bus said.
        source: zbus::Error,
    },
    /// A call was refused.
    #[error("cannot call `{method}` of systemd for `{unit}`")]
    Call {
        /// The method or property.
        method: &'static str,
        /// The unit, or the pid.
        unit: String,
        /// What systemd said.
        source: zbus::Error,
    },
    /// The job did not end in time.
    #[error("cannot wait longer for `{unit}`: its job did not end within {} s", limit.as_secs())]
    Timeout {
        /// The unit.
        unit: UnitName,
        /// The bound.
        limit: Duration,
    },
    /// The job ended, and not with `done`.
    #[error("systemd could not restart `{unit}`: job {job} ended with result `{result}`")]
    Job {
        /// The unit.
        unit: UnitName,
        /// The job's number.
        job: u32,
        /// `failed`, `canceled`, `timeout`, `dependency`, `skipped`.
        result: String,
    },
}

/// A service as systemd sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceState {
    /// `active`, `activating`, `failed`, `inactive`, …
    pub active: String,
    /// `running`, `auto-restart`, …
    pub sub: String,
    /// The main process; `None` while there is none.
    pub main_pid: Option<Pid>,
    /// How the last run ended: `success`, `exit-code`, `start-limit-hit`, …
    pub result: String,
    /// When the main process was started, microseconds since 1970; 0 when it never was.
    pub started: u64,
    /// The unit file.
    pub fragment: PathBuf,
}

/// A connection to systemd. It starts no thread.
#[derive(Debug, Clone)]
pub struct Systemd {
    connection: Connection,
}

impl Systemd {
    /// Connects to the system bus, or to systemd's own socket.
    ///
    /// # Errors
    /// [`SystemdError::Connect`]; so for the bus that was asked first.
    pub async fn connect() -> Result<Self, SystemdError> {
        let connection = match Connection::system().await {
            Ok(connection) => connection,
            Err(source) => private_connection().await.map_err(|_| SystemdError::Connect { source })?,
        };
        Ok(Self { connection })
    }

    /// The unit that a process belongs to.
    ///
    /// # Errors
    /// [`SystemdError::Call`], also when the process is in no unit.
    pub async fn unit_of(&self, pid: Pid) -> Result<UnitName, SystemdError> {
        let path: OwnedObjectPath = self.manager("GetUnitByPID", &pid.to_string(), &(pid.get(),)).await?;
        self.property(path.as_str(), UNIT, "Id").await.map(|id: String| UnitName::new(id))
    }

    /// What systemd knows of a service.
    ///
    /// # Errors
    /// [`SystemdError::Call`], also when there is no such unit.
    pub async fn service(&self, unit: &UnitName) -> Result<ServiceState, SystemdError> {
        let path: OwnedObjectPath = self.manager("LoadUnit", unit.as_str(), &(unit.as_str(),)).await?;
        let path = path.as_str();
        let main_pid: u32 = self.property(path, SERVICE, "MainPID").await?;
        Ok(ServiceState {
            active: self.property(path, UNIT, "ActiveState").await?,
            sub: self.property(path, UNIT, "SubState").await?,
            main_pid: Some(main_pid).filter(|pid| *pid != 0).map(Pid::new),
            result: self.property(path, SERVICE, "Result").await?,
            started: self.property(path, SERVICE, "ExecMainStartTimestamp").await?,
            fragment: PathBuf::from(self.property::<String>(path, UNIT, "FragmentPath").await?),
        })
    }

    /// Forgets a unit's failure and its count of starts, so that a start limit does not refuse the next one.
    ///
    /// # Errors
    /// [`SystemdError::Call`]
    pub async fn reset_failed(&self, unit: &UnitName) -> Result<(), SystemdError> {
        self.manager("ResetFailedUnit", unit.as_str(), &(unit.as_str(),)).await
    }

    /// Restarts a unit and waits for its job to end.
    ///
    /// The signal is subscribed to before the call and told by the job's path: other units' jobs end all the while.
    ///
    /// # Errors
    /// [`SystemdError`] when systemd refuses, the job ends otherwise than `done`, or not within `limit`.
    pub async fn restart(&self, unit: &UnitName, limit: Duration) -> Result<(), SystemdError> {
        let call = |source| SystemdError::Call { method: "RestartUnit", unit: unit.to_string(), source };
        let rule = MatchRule::builder()
            .msg_type(Type::Signal)
            .interface(MANAGER)
            .member("JobRemoved")
            .build()
            .map_err(call)?;
        let mut signals = MessageStream::for_match_rule(rule, &self.connection, None).await.map_err(call)?;
        match self.manager::<(), _>("Subscribe", unit.as_str(), &()).await {
            // A connection subscribes once: the second restart over it is told so.
            Err(SystemdError::Call { source: zbus::Error::MethodError(name, ..), .. })
                if name.as_str() == ALREADY_SUBSCRIBED => {}
            other => other?,
        }
        let job: OwnedObjectPath =
            self.manager("RestartUnit", unit.as_str(), &(unit.as_str(), "replace")).await?;
        let ended = async {
            while let Some(message) = next(&mut signals).await {
                let message = message.map_err(call)?;
                let body = message.body();
                let (id, path, _unit, result): (u32, OwnedObjectPath, String, String) =
                    body.deserialize().map_err(call)?;
                if path == job {
                    return Ok((id, result));
                }
            }
            Err(call(zbus::Error::InputOutput(std::sync::Arc::new(std::io::ErrorKind::UnexpectedEof.into()))))
        };
        let (job, result) = timeout(limit, ended)
            .await
            .map_err(|_| SystemdError::Timeout { unit: unit.clone(), limit })??;
        if result == "done" { Ok(()) } else { Err(SystemdError::Job { unit: unit.clone(), job, result }) }
    }

    async fn manager<R, B>(&self, method: &'static str, about: &str, body: &B) -> Result<R, SystemdError>
    where
        R: for<'a> DynamicDeserialize<'a>,
        B: serde::Serialize + zbus::DynamicType,
    {
        let call = |source| SystemdError::Call { method, unit: about.to_owned(), source };
        let reply = self.connection.call_method(Some(DESTINATION), MANAGER_PATH, Some(MANAGER), method, body);
        let reply = reply.await.map_err(call)?;
        let value = reply.body().deserialize::<R>();
        value.map_err(call)
    }

    async fn property<T>(
        &self,
        path: &str,
        interface: &'static str,
        name: &'static str,
    ) -> Result<T, SystemdError>
    where
        T: TryFrom<OwnedVariant>,
    {
        let call = |source| SystemdError::Call { method: name, unit: path.to_owned(), source };
        let properties = Some("org.freedesktop.DBus.Properties");
        let body = (interface, name);
        let reply = self.connection.call_method(Some(DESTINATION), path, properties, "Get", &body);
        let reply = reply.await.map_err(call)?;
        let value: OwnedVariant = reply.body().deserialize().map_err(call)?;
        T::try_from(value).map_err(|_| call(zbus::Error::InvalidReply))
    }
}

async fn private_connection() -> Result<Connection, zbus::Error> {
    zbus::connection::Builder::address(PRIVATE_SOCKET).p2p().build().await
}

async fn next(stream: &mut MessageStream) -> Option<Result<zbus::Message, zbus::Error>> {
    std::future::poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await
}
