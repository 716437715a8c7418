# alone
ENV MOJO_HOME=/opt/mojo
FETCH github:me/mojo /opt/mojo
RUN uv pip install numpy==2.4.6
RUN <<EOF
mojo precompile
EOF
