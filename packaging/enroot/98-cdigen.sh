#!/bin/sh
# A hook of enroot that gives a container the GPUs that NVIDIA_VISIBLE_DEVICES asks for, of
# those that the job may use. Install it in /etc/enroot/hooks.d; see docs/slurm.md.
set -eu
PATH=$PATH:/usr/local/bin:/usr/bin
exec cdigen inject --format enroot
