# The images of Weft, out of its own static binaries: nothing is pulled, and there is nothing else in them.
#
#   cargo build --release
#   docker build --target discovery -t weft/mesh-discovery .
#   docker build --target proxy -t weft/mesh-proxy .
#
# On another architecture, or from a debug build: --build-arg BINARIES=target/aarch64-unknown-linux-gnu/release
ARG BINARIES=target/x86_64-unknown-linux-gnu/release

FROM scratch AS discovery
ARG BINARIES
COPY ${BINARIES}/mesh-discovery /mesh-discovery
# Virtual IPs and desired state. The control plane, the names and the API: 14010, 14053, 14000.
VOLUME /var/lib/mesh
ENTRYPOINT ["/mesh-discovery"]

FROM scratch AS proxy
ARG BINARIES
COPY ${BINARIES}/mesh-proxy /mesh-proxy
ENTRYPOINT ["/mesh-proxy"]

FROM scratch AS ctl
ARG BINARIES
COPY ${BINARIES}/mesh-ctl /mesh-ctl
ENTRYPOINT ["/mesh-ctl"]

# A service of the example shop.
FROM scratch AS shop
ARG BINARIES
COPY ${BINARIES}/mesh-ctl /mesh-ctl
EXPOSE 8080
ENTRYPOINT ["/mesh-ctl", "shop-service"]
