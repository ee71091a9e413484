#!/bin/sh
# What can be done about run 20261001-040000-f7ed. Nothing of it was run: run the block of a merchant by itself.

# 茶语小铺 (wxtea): 85088, 1 row. Open CloudBase for the merchant, and create an environment.
# Asks the mini program's administrator in WeChat to agree to CloudBase, at most once in 24 hours; once they have, opens it.
tcb-ops call wxtea tcb/createclouduser --target http://127.0.0.1:18080 --merchants /tmp/tcb-ops-histories/merchants.csv --tokens /tmp/tcb-ops-histories/tokens.csv --lang en
# Creates a pay-as-you-go environment, which costs money. It is ready after about ten minutes.
# tcb-ops call wxtea tcb/createenvandresource '{"type": "CreatePostpayPackage", "alias": "tea"}' --target http://127.0.0.1:18080 --merchants /tmp/tcb-ops-histories/merchants.csv --tokens /tmp/tcb-ops-histories/tokens.csv --lang en

# Then run the rows again whose cause has gone
# tcb-ops retry 20261001-040000-f7ed --errcode 85088 --backoff 0.01 --slow-wait 0.05 --patience 10 --target http://127.0.0.1:18080 --ledger /tmp/tcb-ops-histories/moved.db --merchants /tmp/tcb-ops-histories/merchants.csv --tokens /tmp/tcb-ops-histories/tokens.csv --lang en
