# mojo: a toolchain from a tarball, with a library of thousands of files that
# is compiled once. Stands on no other layer, so a change of base leaves it cached.
ARG MIRROR
ARG MOJO_VERSION=1.2.0

FETCH --checksum=sha256:deabed2832af8dd8db502252c6dc1efa1f06d2c5b79a8dc0005355a2ef8bc5b3 --strip=1 ${MIRROR}/mojo-${MOJO_VERSION}.tar /opt/mojo

ENV MOJO_HOME=/opt/mojo \
    PATH=/opt/mojo/bin:$PATH

WORKDIR /opt/mojo
RUN mojo precompile lib

RUN <<EOF
#!/bin/sh -eu
mkdir -p /etc/profile.d
printf 'export MOJO_HOME=%s\n' "$MOJO_HOME" > /etc/profile.d/mojo.sh
EOF

WORKDIR /home/user
SNAPSHOT /opt/mojo
