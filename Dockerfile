# Everything a run needs, made by the commands that make it elsewhere: `make build`, or `make build DEVICE=cuda`.
ARG BASE=python:3.11-slim
FROM ${BASE}
ARG DEVICE=cpu
ENV DEVICE=${DEVICE}

RUN apt-get update \
 && apt-get install -y --no-install-recommends make \
 && { command -v python3 || apt-get install -y --no-install-recommends python3 python3-venv; } \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /alignbench
COPY . .
RUN make .venv/.runtime

CMD ["make", "study"]
