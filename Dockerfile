# One image for every process: the command decides which it is (docs/deploying.md).
FROM python:3.13.5-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/maewol
COPY requirements/production.txt /tmp/production.txt
# Only what is in the lock, only with its hash, and nothing that would be built here.
RUN /opt/maewol/bin/pip install --require-hashes --only-binary=:all: -r /tmp/production.txt
COPY billing /opt/maewol/app/billing
COPY scheduler /opt/maewol/app/scheduler
COPY worker /opt/maewol/app/worker
COPY migrations /opt/maewol/app/migrations
COPY tools/install_app.py /tmp/install_app.py
RUN /opt/maewol/bin/python /tmp/install_app.py /opt/maewol/app

FROM python:3.13.5-slim-bookworm
LABEL org.opencontainers.image.title="maewol" \
      org.opencontainers.image.description="Charges every subscriber's mobile-phone bill once a month"
RUN groupadd --gid 10001 maewol \
 && useradd --uid 10001 --gid maewol --home-dir /var/lib/maewol --create-home maewol
COPY --from=build /opt/maewol /opt/maewol
COPY --chmod=755 deploy/alive.sh /usr/local/bin/alive
# Written while the image is made, since nothing but /tmp can be written later.
ENV PATH=/opt/maewol/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MAEWOL_DATA_DIR=/var/lib/maewol \
    MAEWOL_LIVENESS_FILE=/tmp/alive
USER 10001
WORKDIR /var/lib/maewol
CMD ["maewol", "--help"]
