//! Small UDP packets at a rate, sent and counted: what `scripts/bench.sh` measures packet rates with.
//!
//! ```text
//! small_packets receive ADDRESS SECONDS                    prints how many came
//! small_packets send ADDRESS LENGTH RATE SECONDS           prints how many were sent
//! ```

use std::env::args;
use std::error::Error;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long the sender rests between bursts, and the receiver waits for a packet before it looks at the clock.
const REST: Duration = Duration::from_micros(500);
const PATIENCE: Duration = Duration::from_millis(50);

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let count = match arguments[..] {
        ["receive", address, seconds] => receive(address.parse()?, Duration::from_secs_f64(seconds.parse()?))?,
        ["send", address, len, rate, seconds] => {
            send(address.parse()?, &vec![0x2a; len.parse()?], rate.parse()?, Duration::from_secs_f64(seconds.parse()?))?
        }
        _ => return Err("small_packets receive ADDRESS SECONDS | send ADDRESS LENGTH RATE SECONDS".into()),
    };
    println!("{count}");
    Ok(())
}

fn receive(address: SocketAddr, time: Duration) -> Result<u64, Box<dyn Error>> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::DGRAM, None)?;
    // What the kernel gives of it: `net.core.rmem_max` is the bound.
    socket.set_recv_buffer_size(8 << 20)?;
    socket.bind(&address.into())?;
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(PATIENCE))?;
    let (end, mut received) = (Instant::now() + time, 0);
    let mut packet = [0; 2048];
    while Instant::now() < end {
        match socket.recv(&mut packet) {
            Ok(_) => received += 1,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(received)
}

/// Sends at `rate` packets a second, or as many as the kernel takes: what it refuses is not counted.
fn send(address: SocketAddr, packet: &[u8], rate: f64, time: Duration) -> Result<u64, Box<dyn Error>> {
    let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(address)?;
    let (start, mut tried, mut sent) = (Instant::now(), 0, 0);
    while start.elapsed() < time {
        let due = (start.elapsed().as_secs_f64() * rate) as u64;
        while tried < due && start.elapsed() < time {
            tried += 1;
            sent += u64::from(socket.send(packet).is_ok());
        }
        sleep(REST);
    }
    Ok(sent)
}
