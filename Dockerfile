# cbtalk in a container: the commands, without a compiler.
#
#   docker build --target cpu -t cbtalk:cpu .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" cbtalk:cpu render -s portrait.jpg -d driving.mp4 -o out.mp4
#
#   docker build --target cuda -t cbtalk:cuda .          and then docker run --gpus all ...
#
# The CUDA image needs no CUDA base image: torch brings CUDA's libraries, the host's driver comes with --gpus.
# Not tried: no image has been built on the machine where this file was written, which has neither a Docker daemon nor
# a GPU. The file is linted (hadolint), and what it runs to build and install is what bench/wheel_check.py runs.

FROM python:3.11-slim-bookworm AS base
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
ENV PATH=/opt/cbtalk/bin:$PATH

# torch comes first: the build reads its headers.
FROM base AS builder
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/cbtalk
WORKDIR /src
COPY constraints.txt .

FROM builder AS build-cpu
RUN pip install -c constraints.txt --index-url https://download.pytorch.org/whl/cpu torch
COPY . .
RUN CBTALK_CUDA=OFF pip install -c constraints.txt '.[hub]'

# A torch with CUDA names the one Triton and setuptools that go with it.
FROM builder AS build-cuda
RUN sed -E '/^(setuptools|triton)==/d' constraints.txt > /opt/constraints.txt \
  && pip install -c /opt/constraints.txt torch
COPY .ci/nvcc .ci/nvcc
RUN bash .ci/nvcc /opt/nvcc
COPY . .
RUN CBTALK_CUDA=ON CUDACXX=/opt/nvcc/nvidia/cu13/bin/nvcc pip install -c /opt/constraints.txt '.[hub,gpu]'

# What both images run; weights of hf: names are kept in the volume /models.
FROM base AS runtime
ENV HF_HOME=/models
RUN useradd --uid 1000 --create-home cbtalk && install --directory --mode 1777 /models
VOLUME /models
USER 1000
WORKDIR /work
ENTRYPOINT ["cbtalk"]
CMD ["--help"]

FROM runtime AS cuda
COPY --from=build-cuda /opt/cbtalk /opt/cbtalk

# The last one, so that it is built where no target is named.
FROM runtime AS cpu
COPY --from=build-cpu /opt/cbtalk /opt/cbtalk
