//! Stage 0, the wire beneath [`super::nftables`] and [`super::route`]: a netlink socket inside a network namespace.
//!
//! The kernel handles a request within `sendmsg(2)`, on the caller's own time, and has queued every answer when that
//! returns (`netlink(7)`). So an exchange is one send, then reads until the queue is empty: it never waits, and needs
//! neither a runtime nor a timeout.
//!
//! Deliberately absent: dumps, multicast groups, and anything asynchronous.

use std::io;

use netlink_packet_core::{NLMSG_ERROR, NetlinkBuffer, NlaBuffer, NlasIterator};
use netlink_sys::Socket;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use nix::errno::Errno;
use nix::sys::socket::MsgFlags;

use super::netns::{NamespaceError, NetworkNamespace};

/// Larger than any answer: an error message carries a header, an error number and a short text.
const ANSWER_LEN_MAX: usize = 16 * 1024;
/// Length of `struct nlmsghdr` and of the error number before the echoed header (`linux/netlink.h`).
const HEADER_LEN: usize = 16;
const ERROR_NUMBER_LEN: usize = 4;
/// `NLMSGERR_ATTR_MSG`: the kernel's own words.
const EXTENDED_ACK_TEXT: u16 = 1;
/// `NLM_F_CAPPED`, `NLM_F_ACK_TLVS`: only the header is echoed; attributes follow it.
const FLAG_CAPPED: u16 = 0x100;
const FLAG_HAS_ATTRIBUTES: u16 = 0x200;

/// The two netlink families this stage speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetlinkFamily {
    /// `rtnetlink(7)`: links and routes.
    Route,
    /// nfnetlink: nf_tables.
    Netfilter,
}

/// A netlink exchange did not happen.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    #[error("cannot open a {family:?} netlink socket")]
    Open { family: NetlinkFamily, source: io::Error },
    #[error("cannot send {len} bytes to the kernel by netlink")]
    Send { len: usize, source: io::Error },
    #[error("cannot read the kernel's answer by netlink")]
    Receive { source: io::Error },
    #[error("the kernel's netlink answer is malformed: {detail}")]
    Malformed { detail: String },
}

/// One answer of the kernel (`struct nlmsgerr`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The sequence number of the message that is answered.
    pub sequence: u32,
    /// `None`: done.
    pub error: Option<Errno>,
    /// The kernel's own words, where it has any.
    pub detail: Option<String>,
}

/// The kernel's own words, to stand behind an error number.
pub(super) fn with_detail(detail: &Option<String>) -> String {
    detail.as_deref().map(|text| format!(" ({text})")).unwrap_or_default()
}

/// A netlink socket. It stays in the namespace it was opened in, and what is owned by it goes when it is closed.
#[derive(Debug)]
pub struct NetlinkSocket {
    socket: Socket,
    sequence: u32,
}

impl NetlinkSocket {
    /// Opens a close-on-exec socket in `namespace`; `None` is the process's own.
    ///
    /// # Errors
    /// The namespace cannot be entered, or the kernel lacks the family.
    pub fn open(namespace: Option<&NetworkNamespace>, family: NetlinkFamily) -> Result<Self, NetlinkError> {
        let protocol = match family {
            NetlinkFamily::Route => NETLINK_ROUTE,
            NetlinkFamily::Netfilter => NETLINK_NETFILTER,
        };
        let opened = match namespace {
            Some(namespace) => namespace.enter(|| Socket::new(protocol))?,
            None => Socket::new(protocol),
        };
        let failed = |source| NetlinkError::Open { family, source };
        let mut socket = opened.map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        // Only for better words in errors: an older kernel that lacks either does no harm.
        let _ = socket.set_cap_ack(true);
        let _ = socket.set_ext_ack(true);
        Ok(Self { socket, sequence: 0 })
    }

    /// Reserves `count` consecutive sequence numbers and returns the first.
    pub fn reserve_sequences(&mut self, count: u32) -> u32 {
        let first = self.sequence.wrapping_add(1);
        self.sequence = self.sequence.wrapping_add(count);
        first
    }

    /// Sends `request`, one or more whole netlink messages, and returns what the kernel answered to each message that
    /// asked for it (`NLM_F_ACK`) or failed.
    ///
    /// # Errors
    /// See [`NetlinkError`]. A refusal by the kernel is an [`Answer`], not an error.
    pub fn exchange(&self, request: &[u8]) -> Result<Vec<Answer>, NetlinkError> {
        self.socket.send(request, 0).map_err(|source| NetlinkError::Send { len: request.len(), source })?;
        let mut answers = Vec::new();
        let mut buffer = Vec::with_capacity(ANSWER_LEN_MAX);
        loop {
            buffer.clear();
            match self.socket.recv_from(&mut buffer, MsgFlags::MSG_DONTWAIT.bits()) {
                Ok(_) => parse_answers(&buffer, &mut answers)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(answers),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(NetlinkError::Receive { source }),
            }
        }
    }
}

/// Appends the answers of one datagram, which may hold several messages, each aligned to 4 bytes.
fn parse_answers(mut datagram: &[u8], answers: &mut Vec<Answer>) -> Result<(), NetlinkError> {
    while datagram.len() >= HEADER_LEN {
        let message = NetlinkBuffer::new_checked(datagram)
            .map_err(|error| NetlinkError::Malformed { detail: error.to_string() })?;
        if message.message_type() == NLMSG_ERROR {
            answers.push(parse_answer(message.sequence_number(), message.flags(), message.payload())?);
        }
        let aligned = (message.length() as usize).next_multiple_of(4);
        datagram = datagram.get(aligned..).unwrap_or_default();
    }
    Ok(())
}

fn parse_answer(sequence: u32, flags: u16, payload: &[u8]) -> Result<Answer, NetlinkError> {
    let Some((number, echoed)) = payload.split_first_chunk::<ERROR_NUMBER_LEN>() else {
        return Err(NetlinkError::Malformed { detail: format!("an error of {} bytes", payload.len()) });
    };
    let number = i32::from_ne_bytes(*number);
    let error = (number != 0).then(|| Errno::from_raw(number.saturating_neg()));
    let detail = if flags & FLAG_HAS_ATTRIBUTES == 0 { None } else { extended_ack_text(flags, echoed) };
    Ok(Answer { sequence, error, detail })
}

/// The text of an extended acknowledgement, after the echoed request.
fn extended_ack_text(flags: u16, echoed: &[u8]) -> Option<String> {
    let echoed_len =
        if flags & FLAG_CAPPED == 0 { u32::from_ne_bytes(*echoed.first_chunk::<4>()?) as usize } else { HEADER_LEN };
    let attributes = echoed.get(echoed_len.next_multiple_of(4)..)?;
    let is_text = |attribute: &NlaBuffer<&[u8]>| attribute.kind() == EXTENDED_ACK_TEXT;
    let text = NlasIterator::new(attributes).map_while(Result::ok).find(is_text)?;
    Some(String::from_utf8_lossy(text.value()).trim_end_matches('\0').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: &[Answer]) {
        let mut answers = Vec::new();
        parse_answers(bytes, &mut answers).unwrap();
        assert_eq!(answers, expected);
    }

    /// `struct nlmsghdr` of an NLMSG_ERROR with `flags` and sequence number 7, before `payload`.
    fn message(flags: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER_LEN + payload.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(NLMSG_ERROR.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(7u32.to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn answers_are_read_one_by_one() {
        let echoed = [16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let done = message(FLAG_CAPPED, &[&[0, 0, 0, 0][..], &echoed].concat());
        let refused = message(
            FLAG_CAPPED | FLAG_HAS_ATTRIBUTES,
            &[&(-17i32).to_ne_bytes()[..], &echoed, &[7, 0, 1, 0, b'n', b'o', 0, 0]].concat(),
        );
        let first = Answer { sequence: 7, error: None, detail: None };
        let second = Answer { sequence: 7, error: Some(Errno::EEXIST), detail: Some("no".to_owned()) };
        check(&done, std::slice::from_ref(&first));
        check(&refused, std::slice::from_ref(&second));
        check(&[done, refused].concat(), &[first, second]);
        check(&[], &[]);
    }

    #[test]
    fn a_truncated_answer_is_an_error_and_never_a_panic() {
        let whole = message(
            FLAG_HAS_ATTRIBUTES,
            &[&(-1i32).to_ne_bytes()[..], &[200, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]].concat(),
        );
        for len in HEADER_LEN..whole.len() {
            let mut answers = Vec::new();
            assert!(parse_answers(&whole[..len], &mut answers).is_err(), "{len}");
        }
        let mut answers = Vec::new();
        parse_answers(&whole, &mut answers).unwrap();
        assert_eq!(answers[0].detail, None, "the echoed length points behind the end");
    }
}
