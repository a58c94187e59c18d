# SPDX-License-Identifier: GPL-2.0-or-later
# bash completion for svio-board

_svio_board()
{
    local cur prev words cword
    _init_completion -n : || return

    case $prev in
        --socket | --mgmt)
            _filedir
            return
            ;;
        --port)
            COMPREPLY=($(compgen -W "slirp none dgram: tap: udp: echo" -- "$cur"))
            return
            ;;
        --log-format)
            COMPREPLY=($(compgen -W "text json" -- "$cur"))
            return
            ;;
        --cores | --poll-us | --port-mbps | --slots)
            return
            ;;
    esac
    COMPREPLY=($(compgen -W "--socket --mgmt --port --cores --poll-us --port-mbps --slots --stage-times
        --log-format --help --version" -- "$cur"))
}
complete -F _svio_board svio-board
