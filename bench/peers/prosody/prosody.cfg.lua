-- What V2 and V5 measure beside Tandem: Prosody 0.12.3 of Debian, nothing it does not need.
-- bench replaces the words between at signs: OWN is a directory of the run, CERTIFICATES has cert.pem and key.pem,
-- MODULES is smacks where clients want stream management. Accounts and rosters are files in OWN/data.
run_as_root = true
pidfile = "@OWN@/prosody.pid"; data_path = "@OWN@/data"
admin_socket = "@OWN@/prosody.sock"
interfaces = { "127.0.0.1" }
c2s_ports = { @PLAIN@ }; c2s_direct_tls_ports = { @TLS@ }; s2s_ports = {}
modules_enabled = { "roster", "saslauth", "tls", "disco", "ping", "presence", "message", "iq"@MODULES@ }
modules_disabled = { "s2s" }
authentication = "internal_plain"
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
log = { warn = "@OWN@/prosody.log" }
ssl = { certificate = "@CERTIFICATES@/cert.pem"; key = "@CERTIFICATES@/key.pem" }
c2s_direct_tls_ssl = { certificate = "@CERTIFICATES@/cert.pem"; key = "@CERTIFICATES@/key.pem" }
VirtualHost "load.example"
