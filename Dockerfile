# docker build -t ldm-jax .
# docker run --rm -v "$PWD/runs:/work" ldm-jax --config=cardiac:tiny --workdir=/work/W
# GPU: docker build --build-arg EXTRAS=cuda ... and docker run --gpus all ...
FROM python:3.12-slim

ARG EXTRAS=""
WORKDIR /src
COPY setup.py pyproject.toml MANIFEST.in README.md ./
COPY ldm_jax ldm_jax
COPY configs configs
COPY launch launch
RUN pip install --no-cache-dir ".${EXTRAS:+[$EXTRAS]}" && rm -rf /src

# Scans and results are mounted; nothing of them is in the image.
RUN useradd --create-home ldm && mkdir /work && chown ldm /work
USER ldm
WORKDIR /work
ENTRYPOINT ["ldm-jax"]
CMD ["--help"]
