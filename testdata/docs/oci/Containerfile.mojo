FROM base
RUN echo mojo >> /opt/tools/list
