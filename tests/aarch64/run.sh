#!/usr/bin/env bash
# Install and run the project on an emulated aarch64 machine: sudo bash tests/aarch64/run.sh FOLDER [STEP...]
#
# The steps are machine, install, doctor, train, export, ranks, detection, suites and devices; without a name all run,
# in this order. FOLDER keeps the machine (Debian 12), the packages and one log per step; a finished machine is reused.
# It needs root on Debian or Ubuntu, a network for the first two steps, 8 GB of disk, and hours: QEMU is 10 to 30 times
# slower than the machine it runs on. SAMPLE is the number of images of each class that the steps train and evaluate on
# (default: 20), TESTS are the test folders of the step suites (default: all but docs and devices, the most telling first).
set -euo pipefail

[ $# -ge 1 ] || { echo "usage: bash tests/aarch64/run.sh FOLDER [STEP...]" >&2; exit 2; }
[ "$(id -u)" = 0 ] || { echo "error: chroot and mount need root" >&2; exit 2; }
FOLDER=$(mkdir -p "$1" && cd "$1" && pwd)
shift
SOURCE=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
MACHINE=$FOLDER/root
WHEELS=$FOLDER/wheels
LOGS=$FOLDER/logs
TESTS=${TESTS:-tests/ops tests/native tests/data/pixels tests/boxes tests/checkpoint tests/convert tests/models tests/data
    tests/engine tests/deploy tests/tasks tests/framework tests/files tests/config tests/api tests/report tests/serve
    tests/commands tests/launch tests/end_to_end tests/benchmarks}
SAMPLE=${SAMPLE:-20}
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

# Runs each folder of tests by itself, with a log of its own and a line of its counts: a run that is cut off has results.
# A folder within another one of the list runs once.
suites() {
    local folder log other skipped status=0
    for folder in "$@"; do
        skipped=
        for other in "$@"; do
            case $other in "$folder"/*) skipped+=" --ignore $other" ;; esac
        done
        log=$LOGS/${folder//\//_}.log
        machine ".venv/bin/python -m pytest -rfEs -n 2 --dist loadfile $folder $skipped" > "$log" 2>&1 || status=1
        echo "$folder: $(grep -E '^[0-9].* in [0-9.]+s' "$log" || echo 'no result')"
    done
    return $status
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
    local platforms=() name stamp
    for name in manylinux_2_31 manylinux_2_28 manylinux_2_27 manylinux2014 manylinux_2_17; do
        platforms+=(--platform "${name}_aarch64")
    done
    stamp=$WHEELS/downloaded-$(cksum < "$SOURCE/pyproject.toml" | cut -d ' ' -f 1)
    if [ ! -e "$stamp" ]; then
        python3 -m pip wheel --wheel-dir "$WHEELS" --no-deps jieba # PyPI has its source alone
        python3 -m pip download --dest "$WHEELS" --find-links "$WHEELS" "${platforms[@]}" --platform any \
            --python-version 3.11 --abi cp311 --abi abi3 --abi none --only-binary=:all: "${SOURCE}[dev]" wheel
        touch "$stamp"
    fi
    mkdir -p "$MACHINE/msg_ms"
    # An earlier state's files go, except for its environment and the demo's data and checkpoints.
    find "$MACHINE/msg_ms" -mindepth 1 -maxdepth 1 ! -name .venv ! -name demo ! -name '*.egg-info' -exec rm -rf {} +
    git -C "$SOURCE" archive HEAD | tar -x -C "$MACHINE/msg_ms"
    mount_all
    machine 'source scripts/venv.sh; "$PYTHON" -c "import platform; print(platform.machine(), platform.python_version())"'
}

step_doctor() { machine '.venv/bin/python -m msg_ms.commands.doctor'; }

step_train() {
    machine "
        rm -rf demo/digits demo/digits_p4_win4_64
        .venv/bin/python tools/make_digits.py demo/digits
        for class in demo/digits/*/*; do
            find \$class -type f | sort | tail -n +$((SAMPLE + 1)) | xargs --no-run-if-empty rm
        done
        .venv/bin/python train.py --cfg configs/digits_p4_win4_64.yaml --data-path demo/digits --output demo \
            --opts TRAIN.EPOCHS 1
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
    machine "source .venv/bin/activate
        bash scripts/run_distribute_train.sh 2 configs/digits_p4_win4_64.yaml demo/digits \
        --output demo --batch-size 16 --tag two_ranks --opts TRAIN.EPOCHS 1"
}

step_detection() { suites tests/models/detection tests/tasks/test_detection_predictor.py; }

# shellcheck disable=SC2086 # a list of folders
step_suites() { suites $TESTS; }

# The wheel for aarch64 contains Ascend's plugin, the one that Kunpeng hosts run.
step_devices() { suites tests/devices; }

mkdir -p "$LOGS"
TIMEFORMAT=%U
trap unmount EXIT
failed=()
for step in "${@:-machine install doctor train export ranks detection suites devices}"; do
    for name in $step; do
        declare -F "step_$name" > /dev/null || { echo "error: no step $name" >&2; exit 2; }
        [ "$name" = machine ] || [ "$name" = install ] || mount_all
        start=$SECONDS
        set +e # bash ignores it in a condition, in a process of its own too
        { time { ( set -e; "step_$name" ) > "$LOGS/$name.log" 2>&1; }; } 2> "$LOGS/$name.cpu"
        status=$?
        set -e
        last=$(tail -n 1 "$LOGS/$name.log")
        echo "$name: status $status after $((SECONDS - start)) s, $(cat "$LOGS/$name.cpu") s of the processors: $last"
        [ "$status" = 0 ] || failed+=("$name")
    done
done
[ ${#failed[@]} = 0 ] || { echo "failed: ${failed[*]}; logs in $LOGS"; exit 1; }
