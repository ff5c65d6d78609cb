#!/bin/sh
# One word about a job for Snakemake: success, failed or running. While the cluster does not answer: running.
if ! found=$(kubectl get job "$1" -o 'jsonpath={.status.conditions[?(@.status=="True")].type}' 2>&1); then
  case $found in *NotFound*) echo failed ;; *) echo running ;; esac
  exit 0
fi
case $found in *Complete*) echo success ;; *Failed*) echo failed ;; *) echo running ;; esac
