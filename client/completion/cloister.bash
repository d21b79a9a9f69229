# bash completion for cloister(1); printed by `cloister completion bash`

_cloister_jobs() {
    cloister jobs --json --limit 200 --wait 1s 2>/dev/null |
        sed -n 's/^ *"id": *"[0-9a-f]*\([0-9a-f]\{8\}\)".*/\1/p'
}

_cloister_models() {
    cloister models --json --wait 1s 2>/dev/null |
        sed -n 's/^ *"name": *"\([^"]*\)".*/\1/p'
}

_cloister() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
    local commands="submit batch watch jobs job cancel explain workers models usage ledger status completion help"
    local global=" --json --verbose -v --url -u --tenant --wait -w --identity -i --config -c --check-config --print-config --help -h --version -V"
    local command= i skip=
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        if [ -n "$skip" ]; then
            skip=
            continue
        fi
        case ${COMP_WORDS[i]} in
        "" | --url | -u | --tenant | --wait | -w | --identity | -i | --config | -c | --system | --file | -f | --stop | --answers | --model | -m | --seed | -s | --class | --priority | --deadline | --project | --cost-center | --max-tokens | -n | --temperature | -t | --top-p | --top-k | --min-p | --typical-p | --logit-bias | --repetition-penalty | --presence-penalty | --frequency-penalty | --stop-token | --logprobs | --output | -o | --concurrency | -j | --model | -m | --seed | -s | --class | --priority | --deadline | --project | --cost-center | --max-tokens | -n | --temperature | -t | --top-p | --top-k | --min-p | --typical-p | --logit-bias | --repetition-penalty | --presence-penalty | --frequency-penalty | --stop-token | --logprobs | --from | --state | --model | -m | --tenant | --prefix | --limit | -n | --reason | --shards | --stages | --split | --from | --to | --model | -m | --tenant | --output | -o | --from | --key | -k | --origin | --against | -a) skip=1 ;;
        -*) ;;
        *)
            command+=${command:+ }${COMP_WORDS[i]}
            [[ $command == ledger || $command == models ]] || break ;;
        esac
    done

    case $prev in
    --url | -u)
        :
        return ;;
    --tenant)
        :
        return ;;
    --wait | -w)
        :
        return ;;
    --identity | -i)
        compopt -o filenames; COMPREPLY=($(compgen -f -- "$cur"))
        return ;;
    --config | -c)
        compopt -o filenames; COMPREPLY=($(compgen -f -- "$cur"))
        return ;;
    esac
    case $command:$prev in
    "submit:"--system)
        :
        return ;;
    "submit:"--file | "submit:"-f)
        compopt -o filenames; COMPREPLY=($(compgen -f -- "$cur"))
        return ;;
    "submit:"--stop)
        :
        return ;;
    "submit:"--answers)
        :
        return ;;
    "submit:"--model | "submit:"-m)
        COMPREPLY=($(compgen -W "$(_cloister_models)" -- "$cur"))
        return ;;
    "submit:"--seed | "submit:"-s)
        :
        return ;;
    "submit:"--class)
        COMPREPLY=($(compgen -W "interactive standard batch" -- "$cur"))
        return ;;
    "submit:"--priority)
        :
        return ;;
    "submit:"--deadline)
        :
        return ;;
    "submit:"--project)
        :
        return ;;
    "submit:"--cost-center)
        :
        return ;;
    "submit:"--max-tokens | "submit:"-n)
        :
        return ;;
    "submit:"--temperature | "submit:"-t)
        :
        return ;;
    "submit:"--top-p)
        :
        return ;;
    "submit:"--top-k)
        :
        return ;;
    "submit:"--min-p)
        :
        return ;;
    "submit:"--typical-p)
        :
        return ;;
    "submit:"--logit-bias)
        :
        return ;;
    "submit:"--repetition-penalty)
        :
        return ;;
    "submit:"--presence-penalty)
        :
        return ;;
    "submit:"--frequency-penalty)
        :
        return ;;
    "submit:"--stop-token)
        :
        return ;;
    "submit:"--logprobs)
        :
        return ;;
    "batch:"--output | "batch:"-o)
        compopt -o filenames; COMPREPLY=($(compgen -f -- "$cur"))
        return ;;
    "batch:"--concurrency | "batch:"-j)
        :
        return ;;
    "batch:"--model | "batch:"-m)
        COMPREPLY=($(compgen -W "$(_cloister_models)" -- "$cur"))
        return ;;
    "batch:"--seed | "batch:"-s)
        :
        return ;;
    "batch:"--class)
        COMPREPLY=($(compgen -W "interactive standard batch" -- "$cur"))
        return ;;
    "batch:"--priority)
        :
        return ;;
    "batch:"--deadline)
        :
        return ;;
    "batch:"--project)
        :
        return ;;
    "batch:"--cost-center)
        :
        return ;;
    "batch:"--max-tokens | "batch:"-n)
        :
        return ;;
    "batch:"--temperature | "batch:"-t)
        :
        return ;;
    "batch:"--top-p)
        :
        return ;;
    "batch:"--top-k)
        :
        return ;;
    "batch:"--min-p)
        :
        return ;;
    "batch:"--typical-p)
        :
        return ;;
    "batch:"--logit-bias)
        :
        return ;;
    "batch:"--repetition-penalty)
        :
        return ;;
    "batch:"--presence-penalty)
        :
        return ;;
    "batch:"--frequency-penalty)
        :
        return ;;
    "batch:"--stop-token)
        :
        return ;;
    "batch:"--logprobs)
        :
        return ;;
    "watch:"--from)
        :
        return ;;
    "jobs:"--state)
        :
        return ;;
    "jobs:"--model | "jobs:"-m)
        COMPREPLY=($(compgen -W "$(_cloister_models)" -- "$cur"))
        return ;;
    "jobs:"--tenant)
        :
        return ;;
    "jobs:"--prefix)
        :
        return ;;
    "jobs:"--limit | "jobs:"-n)
        :
        return ;;
    "cancel:"--reason)
        :
        return ;;
    "models plan:"--shards)
        :
        return ;;
    "models plan:"--stages)
        :
        return ;;
    "models plan:"--split)
        :
        return ;;
    "usage:"--from)
        :
        return ;;
    "usage:"--to)
        :
        return ;;
    "usage:"--model | "usage:"-m)
        COMPREPLY=($(compgen -W "$(_cloister_models)" -- "$cur"))
        return ;;
    "usage:"--tenant)
        :
        return ;;
    "ledger export:"--output | "ledger export:"-o)
        compopt -o filenames; COMPREPLY=($(compgen -f -- "$cur"))
        return ;;
    "ledger export:"--from)
        :
        return ;;
    "ledger verify:"--key | "ledger verify:"-k)
        compopt -o filenames; COMPREPLY=($(compgen -f -- "$cur"))
        return ;;
    "ledger verify:"--origin)
        :
        return ;;
    "ledger verify:"--against | "ledger verify:"-a)
        compopt -o filenames; COMPREPLY=($(compgen -f -- "$cur"))
        return ;;
    esac

    local flags=
    case $command in
    "submit") flags=" --system --file -f --raw --stop --answers --detach -d --cancel-on-disconnect --model -m --seed -s --class --priority --deadline --project --cost-center --max-tokens -n --temperature -t --top-p --top-k --min-p --typical-p --logit-bias --repetition-penalty --presence-penalty --frequency-penalty --stop-token --logprobs" ;;
    "batch") flags=" --output -o --concurrency -j --restart --no-progress --model -m --seed -s --class --priority --deadline --project --cost-center --max-tokens -n --temperature -t --top-p --top-k --min-p --typical-p --logit-bias --repetition-penalty --presence-penalty --frequency-penalty --stop-token --logprobs" ;;
    "watch") flags=" --from" ;;
    "jobs") flags=" --state --model -m --tenant --prefix --limit -n" ;;
    "job") flags=" --prompt -p" ;;
    "cancel") flags=" --reason" ;;
    "explain") flags="" ;;
    "workers") flags="" ;;
    "models") flags="" ;;
    "models plan") flags=" --shards --stages --split" ;;
    "usage") flags=" --from --to --model -m --tenant" ;;
    "ledger export") flags=" --output -o --from" ;;
    "ledger verify") flags=" --key -k --origin --against -a" ;;
    "status") flags="" ;;
    "completion") flags="" ;;
    "help") flags="" ;;
    esac
    if [[ $cur == -* ]]; then
        COMPREPLY=($(compgen -W "$flags $global" -- "$cur"))
        return
    fi
    case $command in
    "") COMPREPLY=($(compgen -W "$commands" -- "$cur")) ;;
    ledger) COMPREPLY=($(compgen -W "export verify" -- "$cur")) ;;
    models) COMPREPLY=($(compgen -W plan -- "$cur")) ;;
    "submit") : ;;
    "batch") compopt -o filenames; COMPREPLY=($(compgen -f -- "$cur")) ;;
    "watch") COMPREPLY=($(compgen -W "$(_cloister_jobs)" -- "$cur")) ;;
    "job") COMPREPLY=($(compgen -W "$(_cloister_jobs)" -- "$cur")) ;;
    "cancel") COMPREPLY=($(compgen -W "$(_cloister_jobs)" -- "$cur")) ;;
    "explain") COMPREPLY=($(compgen -W "$(_cloister_jobs)" -- "$cur")) ;;
    "models plan") COMPREPLY=($(compgen -W "$(_cloister_models)" -- "$cur")) ;;
    "ledger verify") compopt -o filenames; COMPREPLY=($(compgen -f -- "$cur")) ;;
    "completion") COMPREPLY=($(compgen -W "bash zsh fish" -- "$cur")) ;;
    "help") COMPREPLY=($(compgen -W "$commands" -- "$cur")) ;;
    esac
}

complete -F _cloister cloister
