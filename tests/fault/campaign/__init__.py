"""The fault campaign: a cluster under mixed load whose processes are killed, frozen and restarted, then an audit."""
