#!/usr/bin/env bash
# Install and run the project on an emulated aarch64 machine: sudo bash tests/aarch64/run.sh FOLDER [STEP...]
#
# The steps are machine, install, doctor, train, export, ranks, detection, suites and devices; without a name all run,
# in this order. FOLDER keeps the machine (Debian 12), the packages and one log per step; a finished machine is reused.
# It needs root on Debian or Ubuntu, a network for the first two steps, 8 GB of disk, and hours: QEMU is 10 to 30 times
# slower than the machine it runs on. TESTS names the tests of the step suites (default: the folders that need no
# launcher), SAMPLE limits the epochs of training.
set -euo pipefail

[ $# -ge 1 ] || { echo "usage: bash tests/aarch64/run.sh FOLDER [STEP...]" >&2; exit 2; }
[ "$(id -u)" = 0 ] || { echo "error: chroot and mount need root" >&2; exit 2; }
FOLDER=$(mkdir -p "$1" && cd "$1" && pwd)
shift
SOURCE=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
MACHINE=$FOLDER/root
WHEELS=$FOLDER/wheels
LOGS=$FOLDER/logs
TESTS=${TESTS:-tests/boxes tests/checkpoint tests/config tests/convert tests/data tests/deploy tests/files tests/framework
    tests/models tests/native tests/ops tests/tasks}
MIRROR=${MIRROR:-http://deb.debian.org/debian}
PACKAGES=python3,python3-venv,python3-pip,g++,libgomp1,libgl1,libglib2.0-0,mount,git,ca-certificates

# Runs a command in the project's folder on the machine.
machine() {
    chroot "$MACHINE" /usr/bin/env -i HOME=/root PATH=/usr/bin:/bin:/usr/sbin:/sbin LANG=C.UTF-8 \
        PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels DEVICE_TARGET=CPU bash -euc "cd /msg_ms; $1"
}

unmount() {
    local part
    for part in wheels dev proc; do
        if mountpoint -q "$MACHINE/$part"; then umount -l "$MACHINE/$part"; fi
    done
}

mount_all() {
    local part
    for part in proc dev; do
        mountpoint -q "$MACHINE/$part" || mount --bind "/$part" "$MACHINE/$part"
    done
    mkdir -p "$MACHINE/wheels"
    mountpoint -q "$MACHINE/wheels" || mount --bind "$WHEELS" "$MACHINE/wheels"
}

step_machine() {
    [ ! -e "$MACHINE/finished" ] || return 0
    apt-get install -y qemu-user-static binfmt-support mmdebstrap
    mountpoint -q /proc/sys/fs/binfmt_misc || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
    update-binfmts --enable qemu-aarch64
    [ ! -e "$MACHINE" ] || { echo "error: $MACHINE is not finished; remove it" >&2; return 2; }
    mmdebstrap --arch=arm64 --variant=apt --include="$PACKAGES" bookworm "$MACHINE" "$MIRROR"
    touch "$MACHINE/finished"
}

# Packages are downloaded outside, where pip is fast, and installed inside as the README says.
step_install() {
    local platforms=() name
    for name in manylinux_2_31 manylinux_2_28 manylinux_2_27 manylinux2014 manylinux_2_17; do
        platforms+=(--platform "${name}_aarch64")
    done
    python3 -m pip wheel --wheel-dir "$WHEELS" --no-deps jieba # PyPI has its source alone
    python3 -m pip download --dest "$WHEELS" --find-links "$WHEELS" "${platforms[@]}" --platform any --python-version 3.11 \
        --abi cp311 --abi abi3 --abi none --only-binary=:all: "${SOURCE}[dev]" wheel
    mkdir -p "$MACHINE/msg_ms"
    git -C "$SOURCE" archive HEAD | tar -x -C "$MACHINE/msg_ms"
    mount_all
    machine 'source scripts/venv.sh; "$PYTHON" -c "import platform; print(platform.machine(), platform.python_version())"'
}

step_doctor() { machine '.venv/bin/python -m msg_ms.commands.doctor'; }

step_train() {
    machine "
        .venv/bin/python tools/make_digits.py demo/digits
        .venv/bin/python train.py --cfg configs/digits_p4_win4_64.yaml --data-path demo/digits --output demo \
            --opts TRAIN.EPOCHS ${SAMPLE:-1}
        .venv/bin/python eval.py --data-path demo/digits --resume demo/digits_p4_win4_64/default/best.ckpt"
}

step_export() {
    machine '
        best=demo/digits_p4_win4_64/default/best.ckpt
        .venv/bin/python tools/convert_torch_ckpt.py --input $best --output demo/digits.pth --reverse
        .venv/bin/python tools/convert_torch_ckpt.py --input demo/digits.pth --output demo/digits.ckpt --verify
        .venv/bin/python tools/export.py --resume $best --output demo/digits.onnx --dynamic-batch'
}

step_ranks() {
    machine "bash scripts/run_distribute_train.sh 2 configs/digits_p4_win4_64.yaml demo/digits \
        --batch-size 16 --tag two_ranks --opts TRAIN.EPOCHS ${SAMPLE:-1}"
}

step_detection() { machine '.venv/bin/python -m pytest -q tests/models/detection tests/tasks/test_detection_predictor.py'; }

step_suites() { machine ".venv/bin/python -m pytest -q -rfEs $TESTS"; }

# The wheel for aarch64 contains Ascend's plugin, the one that Kunpeng hosts run.
step_devices() { machine '.venv/bin/python -m pytest -q -rfEs tests/devices'; }

mkdir -p "$LOGS"
trap unmount EXIT
failed=()
for step in "${@:-machine install doctor train export ranks detection suites devices}"; do
    for name in $step; do
        declare -F "step_$name" > /dev/null || { echo "error: no step $name" >&2; exit 2; }
        [ "$name" = machine ] || [ "$name" = install ] || mount_all
        start=$SECONDS
        status=0
        # A function in a condition ignores "set -e": a process of its own keeps it.
        ( set -e; "step_$name" ) > "$LOGS/$name.log" 2>&1 || status=$?
        last=$(tail -n 1 "$LOGS/$name.log")
        echo "$name: status $status after $((SECONDS - start)) s: $last"
        [ "$status" = 0 ] || failed+=("$name")
    done
done
[ ${#failed[@]} = 0 ] || { echo "failed: ${failed[*]}; logs in $LOGS"; exit 1; }
