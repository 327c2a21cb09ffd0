# docker build -t ldm-jax .
# mkdir -p runs
# docker run --rm --user "$(id -u):$(id -g)" -v "$PWD/runs:/work" \
#   ldm-jax --config=cardiac:tiny --workdir=/work/W
# Other commands: docker run --entrypoint ldm-jax-sample ...
# GPU: docker build --build-arg EXTRAS=cuda ... and docker run --gpus all ...
FROM python:3.12-slim

ARG EXTRAS=""
WORKDIR /src
COPY setup.py pyproject.toml MANIFEST.in README.md LICENSE ./
COPY ldm_jax ldm_jax
COPY configs configs
COPY launch launch
RUN pip install --no-cache-dir ".${EXTRAS:+[$EXTRAS]}" && rm -rf /src

# Scans and results are mounted; nothing of them is in the image. Home is mounted, too:
# the registry of private releases (.local/state) must outlive the container.
RUN useradd --uid 1000 --home-dir /work --create-home ldm
USER 1000
ENV HOME=/work
WORKDIR /work
ENTRYPOINT ["ldm-jax"]
CMD ["--help"]
