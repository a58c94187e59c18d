# SPDX-License-Identifier: GPL-2.0-or-later
# bash completion for svioctl

# The VIFs of the device, if one is named and answers: slots, and names.
_svioctl_vifs()
{
    local socket=$SVIO_SOCKET i
    for ((i = 1; i < cword; i++)); do
        case ${words[i]} in
            -s | --socket) socket=${words[i + 1]} ;;
            --socket=*) socket=${words[i]#*=} ;;
        esac
    done
    echo pf
    [[ -n $socket ]] && svioctl --socket "$socket" vif list 2>/dev/null |
        awk 'NR > 1 { if ($1 == "-") print "id:" $2; else print $1; if ($3 != "-") print "name:" $3 }'
}

_svioctl()
{
    local cur prev words cword
    _init_completion -n =: || return

    local settings="--mac --vlan --trust --spoof-check --promisc --multicast --guest-tagging --link --queue-pairs
        --queue-size --min-rate --max-rate --weight --core --neighbours --name --qos-limit"
    case $prev in
        -s | --socket)
            _filedir
            return
            ;;
        --trust | --spoof-check | --promisc | --multicast | --guest-tagging)
            COMPREPLY=($(compgen -W "on off" -- "$cur"))
            return
            ;;
        --link)
            COMPREPLY=($(compgen -W "auto up down" -- "$cur"))
            return
            ;;
        --core)
            COMPREPLY=($(compgen -W "auto" -- "$cur"))
            return
            ;;
        --neighbours)
            COMPREPLY=($(compgen -W "none" -- "$cur"))
            return
            ;;
        --mac | --vlan | --queue-pairs | --queue-size | --min-rate | --max-rate | --weight | --name | \
            --qos-limit | --slot | --interval | --count | -i | -n)
            return
            ;;
    esac

    # What was said so far, without options and their values.
    local said=() i
    for ((i = 1; i < cword; i++)); do
        case ${words[i]} in
            -s | --socket | -i | --interval | -n | --count) ((i++)) ;;
            --json | -a | --all | -h | --help | --version | --*=*) ;;
            --*) ((i++)) ;;
            *) said+=("${words[i]}") ;;
        esac
    done
    local offer="--socket --json --help"
    case "${said[0]} ${said[1]}" in
        " ") offer+=" vif port core watch --version" ;;
        "vif ") offer+=" list show create destroy set bind unbind stats watch" ;;
        "port ") offer+=" stats" ;;
        "core ") offer+=" list map" ;;
        "vif create") offer+=" --slot $settings" ;;
        "vif set") offer+=" $settings" ;;
        "vif stats") offer+=" --all" ;;
        "vif watch" | "watch "*) offer+=" --interval --count" ;;
        "core map") [[ ${#said[@]} -eq 3 ]] && offer+=" auto" ;;
    esac
    case "${said[0]} ${said[1]}" in
        "vif show" | "vif destroy" | "vif set" | "vif bind" | "vif unbind" | "vif stats" | "vif watch" | "core map")
            [[ ${#said[@]} -eq 2 && $cur != -* ]] && offer+=" $(_svioctl_vifs)"
            ;;
    esac
    COMPREPLY=($(compgen -W "$offer" -- "$cur"))
    __ltrim_colon_completions "$cur"
} && complete -F _svioctl svioctl
