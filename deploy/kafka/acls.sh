#!/usr/bin/env bash
# Made by `make manifests` out of streams/grants.py: change that.
#   BROKER=HOST:PORT ADMIN=admin.properties deploy/kafka/acls.sh
set -euo pipefail
allow() { kafka-acls.sh --bootstrap-server "$BROKER" --command-config "$ADMIN" --add "$@"; }
allow --allow-principal User:tenterhook-ingest --operation Describe --operation DescribeConfigs --topic tenterhook. --resource-pattern-type prefixed
allow --allow-principal User:tenterhook-ingest --operation Read --operation Write --topic tenterhook.installation
allow --allow-principal User:tenterhook-ingest --operation Read --operation Write --topic tenterhook.schemas
allow --allow-principal User:tenterhook-ingest --operation Write --topic tenterhook.events
allow --allow-principal User:tenterhook-ingest --operation Read --topic tenterhook.app-config
allow --allow-principal User:tenterhook-dispatcher --operation Describe --operation DescribeConfigs --topic tenterhook. --resource-pattern-type prefixed
allow --allow-principal User:tenterhook-dispatcher --operation Read --operation Write --topic tenterhook.installation
allow --allow-principal User:tenterhook-dispatcher --operation Read --operation Write --topic tenterhook.schemas
allow --allow-principal User:tenterhook-dispatcher --operation Read --topic tenterhook.events
allow --allow-principal User:tenterhook-dispatcher --operation Read --topic tenterhook.integration-config
allow --allow-principal User:tenterhook-dispatcher --operation Read --topic tenterhook.integration-state
allow --allow-principal User:tenterhook-dispatcher --operation Read --topic tenterhook.app-config
allow --allow-principal User:tenterhook-dispatcher --operation Read --operation Write --topic tenterhook.fan-out
allow --allow-principal User:tenterhook-dispatcher --operation Read --operation Write --topic tenterhook.deliveries
allow --allow-principal User:tenterhook-dispatcher --operation Read --operation Write --topic tenterhook.delivery-results
allow --allow-principal User:tenterhook-dispatcher --operation Read --operation Write --topic tenterhook.event-ids
allow --allow-principal User:tenterhook-dispatcher --operation Read --operation Write --topic tenterhook.lane-rows
allow --allow-principal User:tenterhook-dispatcher --operation Read --operation Write --topic tenterhook.replays
allow --allow-principal User:tenterhook-dispatcher --operation Read --operation Write --topic tenterhook.retry.1s
allow --allow-principal User:tenterhook-dispatcher --operation Read --operation Write --topic tenterhook.retry.5s
allow --allow-principal User:tenterhook-dispatcher --operation Read --operation Write --topic tenterhook.retry.20s
allow --allow-principal User:tenterhook-dispatcher --operation Read --operation Write --topic tenterhook.retry.80s
allow --allow-principal User:tenterhook-dispatcher --operation Read --operation Write --topic tenterhook.retry.320s
allow --allow-principal User:tenterhook-dispatcher --operation Read --operation Write --topic tenterhook.retry.1280s
allow --allow-principal User:tenterhook-dispatcher --operation Read --operation Write --topic tenterhook.retry.5120s
allow --allow-principal User:tenterhook-dispatcher --operation Read --operation Write --topic tenterhook.retry.20480s
allow --allow-principal User:tenterhook-dispatcher --operation Write --topic tenterhook.quarantine
allow --allow-principal User:tenterhook-dispatcher --operation Read --group tenterhook.dispatcher
allow --allow-principal User:tenterhook-breaker --operation Describe --operation DescribeConfigs --topic tenterhook. --resource-pattern-type prefixed
allow --allow-principal User:tenterhook-breaker --operation Read --operation Write --topic tenterhook.installation
allow --allow-principal User:tenterhook-breaker --operation Read --operation Write --topic tenterhook.schemas
allow --allow-principal User:tenterhook-breaker --operation Read --topic tenterhook.delivery-results
allow --allow-principal User:tenterhook-breaker --operation Read --topic tenterhook.integration-config
allow --allow-principal User:tenterhook-breaker --operation Read --operation Write --topic tenterhook.integration-state
allow --allow-principal User:tenterhook-breaker --operation Read --operation Write --topic tenterhook.breaker-rows-changelog
allow --allow-principal User:tenterhook-breaker --operation Write --topic tenterhook.events
allow --allow-principal User:tenterhook-breaker --operation Write --topic tenterhook.quarantine
allow --allow-principal User:tenterhook-breaker --operation Read --group tenterhook.breaker
allow --allow-principal User:tenterhook-admin --operation Describe --operation DescribeConfigs --topic tenterhook. --resource-pattern-type prefixed
allow --allow-principal User:tenterhook-admin --operation Read --operation Write --topic tenterhook.installation
allow --allow-principal User:tenterhook-admin --operation Read --operation Write --topic tenterhook.schemas
allow --allow-principal User:tenterhook-admin --operation Read --topic tenterhook.delivery-results
allow --allow-principal User:tenterhook-admin --operation Read --topic tenterhook.integration-state
allow --allow-principal User:tenterhook-admin --operation Read --topic tenterhook.lane-rows
allow --allow-principal User:tenterhook-admin --operation Read --topic tenterhook.fan-out
allow --allow-principal User:tenterhook-admin --operation Read --operation Write --topic tenterhook.integration-config
allow --allow-principal User:tenterhook-admin --operation Read --operation Write --topic tenterhook.app-config
allow --allow-principal User:tenterhook-admin --operation Read --operation Write --topic tenterhook.config-history
allow --allow-principal User:tenterhook-admin --operation Read --operation Write --topic tenterhook.audit
allow --allow-principal User:tenterhook-admin --operation Read --operation Write --topic tenterhook.replays
allow --allow-principal User:tenterhook-admin --operation Read --operation Write --topic tenterhook.commands
allow --allow-principal User:tenterhook-admin --operation Read --operation Write --topic tenterhook.command-replies
allow --allow-principal User:tenterhook-admin --operation Read --operation Write --topic tenterhook.deliveries
allow --allow-principal User:tenterhook-admin --operation Read --operation Write --topic tenterhook.events
allow --allow-principal User:tenterhook-admin --operation Write --topic tenterhook.quarantine
allow --allow-principal User:tenterhook-admin --operation Read --group tenterhook.admin
allow --allow-principal User:tenterhook-admin --operation Describe --operation Write --transactional-id tenterhook.admin
allow --allow-principal User:tenterhook-operator --operation Describe --operation DescribeConfigs --operation Read --topic tenterhook. --resource-pattern-type prefixed
allow --allow-principal User:tenterhook-operator --operation Describe --group tenterhook. --resource-pattern-type prefixed
allow --allow-principal User:tenterhook-maintainer --operation Describe --operation DescribeConfigs --operation Read --topic tenterhook. --resource-pattern-type prefixed
allow --allow-principal User:tenterhook-maintainer --operation Describe --group tenterhook. --resource-pattern-type prefixed
allow --allow-principal User:tenterhook-maintainer --operation Write --operation Delete --topic tenterhook.events
allow --allow-principal User:tenterhook-maintainer --operation Write --operation Delete --topic tenterhook.deliveries
allow --allow-principal User:tenterhook-maintainer --operation Write --operation Delete --topic tenterhook.retry.1s
allow --allow-principal User:tenterhook-maintainer --operation Write --operation Delete --topic tenterhook.retry.5s
allow --allow-principal User:tenterhook-maintainer --operation Write --operation Delete --topic tenterhook.retry.20s
allow --allow-principal User:tenterhook-maintainer --operation Write --operation Delete --topic tenterhook.retry.80s
allow --allow-principal User:tenterhook-maintainer --operation Write --operation Delete --topic tenterhook.retry.320s
allow --allow-principal User:tenterhook-maintainer --operation Write --operation Delete --topic tenterhook.retry.1280s
allow --allow-principal User:tenterhook-maintainer --operation Write --operation Delete --topic tenterhook.retry.5120s
allow --allow-principal User:tenterhook-maintainer --operation Write --operation Delete --topic tenterhook.retry.20480s
allow --allow-principal User:tenterhook-maintainer --operation Write --operation Delete --topic tenterhook.delivery-results
allow --allow-principal User:tenterhook-maintainer --operation Write --operation Delete --topic tenterhook.commands
allow --allow-principal User:tenterhook-maintainer --operation Write --topic tenterhook.quarantine
allow --allow-principal User:tenterhook-maintainer --operation Write --topic tenterhook.audit
allow --allow-principal User:tenterhook-maintainer --operation Write --topic tenterhook.config-history
allow --allow-principal User:tenterhook-maintainer --operation Write --topic tenterhook.app-config
allow --allow-principal User:tenterhook-maintainer --operation Write --topic tenterhook.integration-config
allow --allow-principal User:tenterhook-maintainer --operation Write --topic tenterhook.installation
allow --allow-principal User:tenterhook-maintainer --operation Write --topic tenterhook.schemas
allow --allow-principal User:tenterhook-maintainer --operation Describe --operation Write --transactional-id tenterhook.restore
allow --allow-principal User:tenterhook-maintainer --operation Read --group tenterhook.dispatcher
allow --allow-principal User:tenterhook-maintainer --operation Read --group tenterhook.breaker
allow --allow-principal User:tenterhook-maintainer --operation Read --group tenterhook.admin
