//! Stage 0 of a request's walk: traffic is brought to us.
//!
//! An application dials what it always dialled. Inside its network namespace nftables rules redirect its new TCP
//! connections to mesh addresses (the virtual IP range, and the endpoints' own addresses) to a listener that the proxy
//! opened in that same namespace; the kernel remembers where the application was going, and [`original_dst`] asks it.
//!
//! Read in this order: [`watch`] (a namespace appears) → [`netns`] (enter it, make a socket, come back) →
//! [`capture`] (listeners, route and rules together, the composer of this stage) → [`original_dst`] (where was it
//! going). [`probe`] tries all of it beforehand. Beneath them: [`nftables`] (the rules), [`route`] (the virtual IP
//! range stays inside), [`connections`] and [`conntrack`] (what was there before us), [`netlink`] (the wire all three share).
//!
//! Deliberately absent: UDP and IPv6 virtual IPs (IPv6 *endpoint* addresses are captured), TPROXY, iptables, eBPF,
//! inbound redirection, renewing or retrying by itself, and any help from outside this binary (no `nft`, no `ip`, no C
//! library, no writable `/proc/sys`).
//! Which namespaces and which addresses to capture is not decided here: the caller says so.

pub mod watch; // a namespace appears
pub mod netns; // enter it, make a socket, come back
pub mod capture; // composer: refuse, listen, redirect
pub mod original_dst; // where was it going
pub mod probe; // can it be done here at all
pub mod nftables; // the rules
pub mod route; // virtual IPs stay inside
pub mod connections; // what was there before us
pub mod conntrack; // what of it can still be turned to us
pub mod netlink; // the wire beneath them

#[cfg(test)]
mod tests;
