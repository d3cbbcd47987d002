//! nginx in front of a server.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
};

use rand::Rng as _;
use tempfile::TempDir;

/// An nginx of HTTP/1.1, with connections to the server that it keeps open; killed when dropped.
pub struct Nginx {
    child: Child,
    address: SocketAddr,
    /// Directory of its configuration.
    _directory: TempDir,
}

impl Nginx {
    /// Starts one before `server`, on a free port.
    pub fn start(server: SocketAddr) -> Self {
        for _ in 0..20 {
            let random = otpd::keys::os_rng().next_u64() % 12_000;
            let port = 20_000 + u16::try_from(random).expect("below");
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            if let Some(proxy) = Self::start_at(address, server) {
                return proxy;
            }
        }
        panic!("nginx does not start");
    }

    /// Address of its listener.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn start_at(address: SocketAddr, server: SocketAddr) -> Option<Self> {
        let directory = tempfile::tempdir().expect("the temporary directory takes files");
        let file = directory.path().join("nginx.conf");
        let place = directory.path().display();
        let settings = format!(
            "daemon off; master_process off; pid {place}/pid; error_log {place}/error;\n\
             events {{ worker_connections 1024; }}\n\
             http {{\n\
             access_log off; client_body_temp_path {place}; proxy_temp_path {place};\n\
             fastcgi_temp_path {place}; uwsgi_temp_path {place}; scgi_temp_path {place};\n\
             upstream otpd {{ server {server}; keepalive 4; }}\n\
             server {{ listen {address}; location / {{\n\
             proxy_pass http://otpd; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
             proxy_request_buffering off; }} }} }}\n"
        );
        fs::write(&file, settings).expect("a new directory takes files");
        let program = std::env::var_os("TEST_NGINX").expect(
            "TEST_NGINX names nginx; run `./check tests`, or a test by `scripts/with-postgres cargo test NAME`",
        );
        let child = Command::new(program)
            .arg("-c")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx is installed");
        let mut proxy = Self {
            child,
            address,
            _directory: directory,
        };
        loop {
            if TcpStream::connect(address).is_ok() {
                // The port of another program would be open as well.
                return proxy.runs().then_some(proxy);
            }
            if !proxy.runs() {
                return None;
            }
        }
    }

    fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Both fail only if the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
