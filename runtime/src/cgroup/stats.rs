//! What a cgroup has used: placeholder for the commands `events --stats`.
