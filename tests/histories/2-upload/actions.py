# What can be done about run 20261001-040000-f7ed. Nothing of it was run: run the block of a merchant by itself.
# %%
import tcb_ops as tcb

settings = tcb.load_settings(None, {"ledger": "/tmp/tcb-ops-histories/moved.db", "merchants": "/tmp/tcb-ops-histories/merchants.csv", "lang": "en"})
on = dict(settings=settings, target="http://127.0.0.1:18080")

# %% 茶语小铺 (wxtea): 85088, 1 row. Open CloudBase for the merchant, and create an environment.
# Asks the mini program's administrator in WeChat to agree to CloudBase, at most once in 24 hours; once they have, opens it.
print(tcb.call("wxtea", "tcb/createclouduser", **on))
# Creates a pay-as-you-go environment, which costs money. It is ready after about ten minutes.
# print(tcb.call("wxtea", "tcb/createenvandresource", {"type": "CreatePostpayPackage", "alias": "tea"}, **on))

# %% Then run the rows again whose cause has gone
# tcb.retry("20261001-040000-f7ed", codes=["85088"], **on)
