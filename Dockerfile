# One image for every part of the service; docker-compose.yml says which part a container is.
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY service service
COPY workers workers
COPY search search
COPY hw_profiles hw_profiles
COPY compress compress
COPY netlathe netlathe
RUN python -m venv /opt/netlathe \
    && /opt/netlathe/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt '.[server]'

FROM python:3.11-slim
# torch and onnxruntime need the OpenMP runtime.
RUN apt-get update -q \
    && apt-get install -y -q --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home netlathe \
    && install -d -o netlathe -g netlathe -m 0700 /data /state /lock
COPY --from=build /opt/netlathe /opt/netlathe
ENV PATH=/opt/netlathe/bin:$PATH NETLATHE_DATA_DIR=/data PYTHONUNBUFFERED=1
USER netlathe
VOLUME ["/data"]
EXPOSE 8000
ENTRYPOINT ["netlathe"]
CMD ["serve", "--host", "0.0.0.0", "--insecure"]
