package run

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// A few netlink messages stand here instead of a library: they are the whole
// use that is made of it, and start-up time is counted in milliseconds.

// attribute appends a netlink attribute (struct nlattr, padded to 4 bytes).
func attribute(dst []byte, kind uint16, value []byte) []byte {
	dst = binary.NativeEndian.AppendUint16(dst, uint16(4+len(value)))
	dst = binary.NativeEndian.AppendUint16(dst, kind)
	dst = append(dst, value...)
	for len(dst)%4 != 0 {
		dst = append(dst, 0)
	}
	return dst
}

func nested(dst []byte, kind uint16, value []byte) []byte {
	return attribute(dst, kind|unix.NLA_F_NESTED, value)
}

func text(s string) []byte { return append([]byte(s), 0) }

func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

// netlinkMessage appends a message with its header.
func netlinkMessage(dst []byte, kind, flags uint16, seq uint32, body []byte) []byte {
	dst = binary.NativeEndian.AppendUint32(dst, uint32(unix.NLMSG_HDRLEN+len(body)))
	dst = binary.NativeEndian.AppendUint16(dst, kind)
	dst = binary.NativeEndian.AppendUint16(dst, flags)
	dst = binary.NativeEndian.AppendUint32(dst, seq)
	dst = binary.NativeEndian.AppendUint32(dst, 0)
	return append(dst, body...)
}

// netlink sends messages, of which the last answer wanted are acknowledged.
func netlink(protocol int, messages []byte, answers int) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, messages, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buffer := make([]byte, 8192)
	for answers > 0 {
		n, _, err := unix.Recvfrom(fd, buffer, 0)
		if err != nil {
			return err
		}
		for b := buffer[:n]; len(b) >= unix.NLMSG_HDRLEN+4; {
			length := int(binary.NativeEndian.Uint32(b))
			if binary.NativeEndian.Uint16(b[4:]) == unix.NLMSG_ERROR {
				if code := int32(binary.NativeEndian.Uint32(b[unix.NLMSG_HDRLEN:])); code != 0 {
					return unix.Errno(-code)
				}
				answers--
			}
			if length < unix.NLMSG_HDRLEN || length > len(b) {
				return errors.New("a netlink answer is malformed")
			}
			b = b[min((length+3)&^3, len(b)):]
		}
	}
	return nil
}

const (
	nftTable = "postern"
	nftChain = "out"
)

// Attributes of the tproxy expression (linux/netfilter/nf_tables.h).
const (
	tproxyFamily  = 1
	tproxyRegPort = 3
)

// nftMessage is one message to nf_tables.
func nftMessage(dst []byte, kind, flags uint16, seq uint32, body []byte) []byte {
	head := []byte{unix.AF_INET, unix.NFNETLINK_V0, 0, 0}
	return netlinkMessage(dst, unix.NFNL_SUBSYS_NFTABLES<<8|kind, unix.NLM_F_REQUEST|flags, seq, append(head, body...))
}

// nftBatch wraps messages into one transaction.
func nftBatch(inner []byte, seq uint32) []byte {
	head := []byte{0, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES}
	batch := netlinkMessage(nil, unix.NFNL_MSG_BATCH_BEGIN, unix.NLM_F_REQUEST, 0, head)
	batch = append(batch, inner...)
	return netlinkMessage(batch, unix.NFNL_MSG_BATCH_END, unix.NLM_F_REQUEST, seq, head)
}

// expression is one step of a rule.
func expression(dst []byte, name string, data []byte) []byte {
	e := attribute(nil, unix.NFTA_EXPR_NAME, text(name))
	e = nested(e, unix.NFTA_EXPR_DATA, data)
	return nested(dst, unix.NFTA_LIST_ELEM, e)
}

func value(kind uint16, b []byte) []byte {
	return nested(nil, kind, attribute(nil, unix.NFTA_DATA_VALUE, b))
}

// compare continues the rule where register 1 equals b.
func compare(dst, b []byte) []byte {
	d := attribute(nil, unix.NFTA_CMP_SREG, be32(unix.NFT_REG_1))
	d = attribute(d, unix.NFTA_CMP_OP, be32(unix.NFT_CMP_EQ))
	return expression(dst, "cmp", append(d, value(unix.NFTA_CMP_DATA, b)...))
}

// loopbackStays accepts what goes to 127.0.0.0/8.
func loopbackStays() []byte {
	d := attribute(nil, unix.NFTA_PAYLOAD_DREG, be32(unix.NFT_REG_1))
	d = attribute(d, unix.NFTA_PAYLOAD_BASE, be32(unix.NFT_PAYLOAD_NETWORK_HEADER))
	d = attribute(d, unix.NFTA_PAYLOAD_OFFSET, be32(16)) // destination address
	d = attribute(d, unix.NFTA_PAYLOAD_LEN, be32(1))
	rule := compare(expression(nil, "payload", d), []byte{127})
	verdict := nested(nil, unix.NFTA_DATA_VERDICT, attribute(nil, unix.NFTA_VERDICT_CODE, be32(1))) // NF_ACCEPT
	d = attribute(nil, unix.NFTA_IMMEDIATE_DREG, be32(unix.NFT_REG_VERDICT))
	return expression(rule, "immediate", append(d, nested(nil, unix.NFTA_IMMEDIATE_DATA, verdict)...))
}

// tcpTo leads all TCP to the listening socket at port, whatever its destination.
func tcpTo(port uint16) []byte {
	d := attribute(nil, unix.NFTA_META_DREG, be32(unix.NFT_REG_1))
	d = attribute(d, unix.NFTA_META_KEY, be32(unix.NFT_META_L4PROTO))
	rule := compare(expression(nil, "meta", d), []byte{unix.IPPROTO_TCP})
	d = attribute(nil, unix.NFTA_IMMEDIATE_DREG, be32(unix.NFT_REG_1))
	d = append(d, value(unix.NFTA_IMMEDIATE_DATA, binary.BigEndian.AppendUint16(nil, port))...)
	rule = expression(rule, "immediate", d)
	d = attribute(nil, tproxyFamily, be32(unix.NFPROTO_IPV4))
	d = attribute(d, tproxyRegPort, be32(unix.NFT_REG_1))
	return expression(rule, "tproxy", d)
}

// loadTransparent loads the two rules: the command's own loopback stays its own,
// all other TCP reaches the listener with its destination as local address.
func loadTransparent(port uint16) error {
	const create = unix.NLM_F_CREATE | unix.NLM_F_ACK
	table := attribute(nil, unix.NFTA_TABLE_NAME, text(nftTable))
	b := nftMessage(nil, unix.NFT_MSG_NEWTABLE, create, 1, table)

	hook := attribute(nil, unix.NFTA_HOOK_HOOKNUM, be32(unix.NF_INET_PRE_ROUTING))
	hook = attribute(hook, unix.NFTA_HOOK_PRIORITY, be32(^uint32(150)+1)) // mangle
	chain := attribute(nil, unix.NFTA_CHAIN_TABLE, text(nftTable))
	chain = attribute(chain, unix.NFTA_CHAIN_NAME, text(nftChain))
	chain = nested(chain, unix.NFTA_CHAIN_HOOK, hook)
	chain = attribute(chain, unix.NFTA_CHAIN_TYPE, text("filter"))
	b = nftMessage(b, unix.NFT_MSG_NEWCHAIN, create, 2, chain)

	for i, expressions := range [][]byte{loopbackStays(), tcpTo(port)} {
		rule := attribute(nil, unix.NFTA_RULE_TABLE, text(nftTable))
		rule = attribute(rule, unix.NFTA_RULE_CHAIN, text(nftChain))
		rule = nested(rule, unix.NFTA_RULE_EXPRESSIONS, expressions)
		b = nftMessage(b, unix.NFT_MSG_NEWRULE, create|unix.NLM_F_APPEND, uint32(3+i), rule)
	}
	if err := netlink(unix.NETLINK_NETFILTER, nftBatch(b, 5), 4); err != nil {
		return fmt.Errorf("loading the rule that leads connections to the broker: %w", err)
	}
	return nil
}
