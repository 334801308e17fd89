#!/usr/bin/env bash
# Publishes every detector under a folder to the Hugging Face Hub, for example one for each of 15 categories:
#
#   HF_TOKEN=... ./hub-upload.sh runs/ --dataset mvtec-ad            # checks all, uploads nothing
#   HF_TOKEN=... ./hub-upload.sh runs/ --dataset mvtec-ad --yes      # checks all, then uploads all
#
# A detector is a folder with a config.json: DIR itself, or any folder up to three below it. All are checked before any is
# uploaded. A failed upload does not stop the others; it may be repeated, and what is there already is left alone.
# Further options go to `fastflow publish` (--tag T, --revision R, --create-pr, --private, --dataset NAME, --licence ID).
# FASTFLOW_NAMESPACE is the organisation, by default the token's owner; FASTFLOW names the program. Exit code: 0 all well, 1 some failed, 2 wrong use.
set -euo pipefail

fastflow=${FASTFLOW:-fastflow}
directory=
upload=false
options=()
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help)
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
        exit 0
        ;;
    --yes) upload=true ;;
    --dry-run) upload=false ;;
    --repo)
        echo "hub-upload.sh: --repo names one repository; here each detector has its own (set FASTFLOW_NAMESPACE)" >&2
        exit 2
        ;;
    --tag | --revision | --dataset | --licence | --license | --message | --backbone-weights)
        [ $# -ge 2 ] || { echo "hub-upload.sh: $1 needs a value" >&2 && exit 2; }
        options+=("$1" "$2")
        shift
        ;;
    -*) options+=("$1") ;;
    *)
        [ -z "$directory" ] || { echo "hub-upload.sh: one folder at a time, not also $1" >&2 && exit 2; }
        directory=$1
        ;;
    esac
    shift
done
[ -n "$directory" ] || { echo "hub-upload.sh: which folder? (--help)" >&2 && exit 2; }
[ -d "$directory" ] || { echo "hub-upload.sh: $directory: no such folder" >&2 && exit 2; }
command -v "$fastflow" >/dev/null || {
    echo "hub-upload.sh: no program $fastflow (cargo install --path . makes it, or set FASTFLOW)" >&2
    exit 2
}

detectors=()
while IFS= read -r -d '' config; do
    detector=$(dirname "$config")
    [ ! -f "$detector/model.safetensors" ] || detectors+=("$detector")
done < <(find "$directory" -maxdepth 4 -name config.json -print0 | sort -z)
[ ${#detectors[@]} -gt 0 ] || { echo "hub-upload.sh: $directory: no detectors (folders with a config.json)" >&2 && exit 2; }

# Runs `fastflow publish` on every detector; the reasons of failures are kept for the report.
failures=()
publish_all() {
    local detector message repo goes_to=$'\n'
    failures=()
    for detector in "${detectors[@]}"; do
        if ! message=$("$fastflow" publish "$detector" "${options[@]+"${options[@]}"}" "$1" 2>&1 </dev/null); then
            fail "$detector: $(printf '%s\n' "$message" | tail -n 1)"
            continue
        fi
        # Two runs of one category would overwrite each other.
        repo=$(printf '%s\n' "$message" | sed -n 's/.* -> \([^ ]*\) (.*/\1/p' | head -n 1)
        if [[ $goes_to == *$'\n'"$repo"$'\n'* ]]; then
            fail "$detector: another detector here goes to $repo too; leave one of them out"
            continue
        fi
        goes_to+=$repo$'\n'
        printf 'ok      %s\n' "$detector"
        printf '%s\n' "$message" | sed 's/^/        /'
    done
}

fail() {
    failures+=("$1")
    printf 'FAILED  %s\n' "$1"
}

report() {
    printf '\n%s: %d of %d\n' "$1" $((${#detectors[@]} - ${#failures[@]})) ${#detectors[@]}
    [ ${#failures[@]} -eq 0 ] || printf '  %s\n' "${failures[@]}"
}

echo "Checking ${#detectors[@]} detectors"
publish_all --dry-run
report "checked and sound"
if [ ${#failures[@]} -gt 0 ]; then
    echo "Nothing was uploaded."
    exit 1
fi
if ! $upload; then
    echo "Nothing was uploaded: give --yes for that."
    exit 0
fi
printf '\nUploading\n'
publish_all --yes
report "published and verified"
[ ${#failures[@]} -eq 0 ] || exit 1
