package run

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

const nftTable = "postern"

// Attributes of the tproxy expression (linux/netfilter/nf_tables.h).
const (
	tproxyFamily  = 1
	tproxyRegPort = 3
)

// loadRules loads the rules that lead TCP to the listening socket at port. The
// command's own loopback stays its own.
func loadRules(lead way, port uint16) error {
	const create = unix.NLM_F_CREATE | unix.NLM_F_ACK
	kind, hook, priority := "filter", uint32(unix.NF_INET_PRE_ROUTING), int32(-150) // mangle
	if lead == redirected {
		kind, hook, priority = "nat", unix.NF_INET_LOCAL_OUT, -100 // destination NAT
	}
	b := nftMessage(nil, unix.NFT_MSG_NEWTABLE, create, 1, attribute(nil, unix.NFTA_TABLE_NAME, text(nftTable)))

	at := attribute(nil, unix.NFTA_HOOK_HOOKNUM, be32(hook))
	at = attribute(at, unix.NFTA_HOOK_PRIORITY, be32(uint32(priority)))
	chain := attribute(nil, unix.NFTA_CHAIN_TABLE, text(nftTable))
	chain = attribute(chain, unix.NFTA_CHAIN_NAME, text("out"))
	chain = nested(chain, unix.NFTA_CHAIN_HOOK, at)
	chain = attribute(chain, unix.NFTA_CHAIN_TYPE, text(kind))
	b = nftMessage(b, unix.NFT_MSG_NEWCHAIN, create, 2, chain)

	rules := [][]byte{
		stays(netip.MustParsePrefix("127.0.0.0/8")),
		stays(netip.PrefixFrom(ownAddress(), 32)),
		stays(netip.PrefixFrom(netip.IPv6Loopback(), 128)),
		tcpTo(lead, port),
	}
	for i, expressions := range rules {
		rule := attribute(nil, unix.NFTA_RULE_TABLE, text(nftTable))
		rule = attribute(rule, unix.NFTA_RULE_CHAIN, text("out"))
		rule = nested(rule, unix.NFTA_RULE_EXPRESSIONS, expressions)
		b = nftMessage(b, unix.NFT_MSG_NEWRULE, create|unix.NLM_F_APPEND, uint32(3+i), rule)
	}
	return netlink(unix.NETLINK_NETFILTER, nftBatch(b, uint32(3+len(rules))), 2+len(rules))
}

// nftMessage is one message to nf_tables.
func nftMessage(dst []byte, kind, flags uint16, seq uint32, body []byte) []byte {
	head := []byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}
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

// compare goes on with the rule where register 1 equals b.
func compare(dst, b []byte) []byte {
	d := attribute(nil, unix.NFTA_CMP_SREG, be32(unix.NFT_REG_1))
	d = attribute(d, unix.NFTA_CMP_OP, be32(unix.NFT_CMP_EQ))
	return expression(dst, "cmp", append(d, value(unix.NFTA_CMP_DATA, b)...))
}

// meta goes on where the fact key of a packet is b.
func meta(dst []byte, key uint32, b byte) []byte {
	d := attribute(nil, unix.NFTA_META_DREG, be32(unix.NFT_REG_1))
	d = attribute(d, unix.NFTA_META_KEY, be32(key))
	return compare(expression(dst, "meta", d), []byte{b})
}

// stays accepts what goes to addresses of prefix, whose length is in whole bytes.
func stays(prefix netip.Prefix) []byte {
	family, offset := byte(unix.NFPROTO_IPV4), uint32(16) // of the destination in the header
	if prefix.Addr().Is6() {
		family, offset = unix.NFPROTO_IPV6, 24
	}
	length := prefix.Bits() / 8
	rule := meta(nil, unix.NFT_META_NFPROTO, family)
	d := attribute(nil, unix.NFTA_PAYLOAD_DREG, be32(unix.NFT_REG_1))
	d = attribute(d, unix.NFTA_PAYLOAD_BASE, be32(unix.NFT_PAYLOAD_NETWORK_HEADER))
	d = attribute(d, unix.NFTA_PAYLOAD_OFFSET, be32(offset))
	d = attribute(d, unix.NFTA_PAYLOAD_LEN, be32(uint32(length)))
	rule = compare(expression(rule, "payload", d), prefix.Addr().AsSlice()[:length])
	const accept = 1 // NF_ACCEPT
	verdict := nested(nil, unix.NFTA_DATA_VERDICT, attribute(nil, unix.NFTA_VERDICT_CODE, be32(accept)))
	d = attribute(nil, unix.NFTA_IMMEDIATE_DREG, be32(unix.NFT_REG_VERDICT))
	return expression(rule, "immediate", append(d, nested(nil, unix.NFTA_IMMEDIATE_DATA, verdict)...))
}

// tcpTo leads all TCP to the listening socket at port, whatever its destination.
func tcpTo(lead way, port uint16) []byte {
	rule := meta(nil, unix.NFT_META_L4PROTO, unix.IPPROTO_TCP)
	d := attribute(nil, unix.NFTA_IMMEDIATE_DREG, be32(unix.NFT_REG_1))
	d = append(d, value(unix.NFTA_IMMEDIATE_DATA, binary.BigEndian.AppendUint16(nil, port))...)
	rule = expression(rule, "immediate", d)
	if lead == redirected {
		return expression(rule, "redir", attribute(nil, unix.NFTA_REDIR_REG_PROTO_MIN, be32(unix.NFT_REG_1)))
	}
	d = attribute(nil, tproxyFamily, be32(unix.NFPROTO_UNSPEC))
	d = attribute(d, tproxyRegPort, be32(unix.NFT_REG_1))
	return expression(rule, "tproxy", d)
}
