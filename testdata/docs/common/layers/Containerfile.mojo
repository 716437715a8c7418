FROM base
ENV MOJO_HOME=/opt/mojo PATH=/opt/mojo/bin:$PATH
FETCH github:me/mojo /opt/mojo
RUN uv pip install numpy==2.4.6
RUN <<EOF
mojo precompile
EOF
