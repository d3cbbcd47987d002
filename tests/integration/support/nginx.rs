//! nginx in front of a server.

use std::{fs, net::SocketAddr, path::Path, process::Command};

use super::intermediary::{Intermediary, program};

/// An nginx of HTTP/1.1, with connections to the server that it keeps open; killed when dropped.
pub struct Nginx(Intermediary);

impl Nginx {
    /// Starts one before `server`, on a free port.
    pub fn start(server: SocketAddr) -> Self {
        Self(Intermediary::start(|address, directory| {
            let file = directory.join("nginx.conf");
            let settings = settings(address, server, directory);
            fs::write(&file, settings).expect("a new directory takes files");
            let mut command = Command::new(program("TEST_NGINX"));
            command.arg("-c").arg(&file);
            command
        }))
    }

    /// Address of its listener.
    pub fn address(&self) -> SocketAddr {
        self.0.address()
    }
}

fn settings(address: SocketAddr, server: SocketAddr, directory: &Path) -> String {
    let place = directory.display();
    format!(
        "daemon off; master_process off; pid {place}/pid; error_log {place}/error;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n\
         access_log off; client_body_temp_path {place}; proxy_temp_path {place};\n\
         fastcgi_temp_path {place}; uwsgi_temp_path {place}; scgi_temp_path {place};\n\
         upstream otpd {{ server {server}; keepalive 4; }}\n\
         server {{ listen {address}; location / {{\n\
         proxy_pass http://otpd; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
         proxy_request_buffering off; }} }} }}\n"
    )
}
